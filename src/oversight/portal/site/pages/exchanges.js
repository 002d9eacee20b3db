// Exchanges: what is sought is in the address; the newest that fit are found in the logs themselves.

import { shortName } from '../directory.js';
import { announce, busy, csvButton, fault, h, nothing, table } from '../dom.js';
import { isUuid, memberOf } from '../entry.js';
import { go, href } from '../links.js';
import { basis, method, outcome, system } from '../parts.js';
import { FIELDS, search } from '../search.js';
import { Tally } from '../tally.js';
import { bytes, moment, named, number, shortMoment, t } from '../text.js';
import { traffic } from '../source.js';

const PAGE = 25;
const BISHKEK = '+06:00';

export async function exchanges({ sources, params, isCurrent }) {
  const [tally, words] = await Promise.all([Tally.of(sources), sources.bases()]);
  const results = h('section', { class: 'results', 'aria-label': t('results') }, busy());
  find(sources, params, words, results, isCurrent);
  return h('div', null, h('p', { class: 'lead' }, t('exchanges-lead')), form(sources, tally, words, params), results);
}

function form(sources, tally, words, params) {
  const groups = tally.groups().filter(({ as }) => as !== 'look');
  const values = (key) =>
    [...new Set(groups.map((group) => group[key]))].filter((value) => value && value !== '…').sort();
  const members = [
    ...new Set([
      ...sources.directory.members.keys(),
      ...groups.flatMap(({ consumer, provider }) => [memberOf(consumer), memberOf(provider)]),
    ]),
  ].filter((member) => member && member !== '…');
  const bodies = members
    .map((member) => [member, shortName(sources.directory, member)])
    .sort((a, b) => a[1].localeCompare(b[1]));
  const choice = (name, options) =>
    h(
      'label',
      null,
      h('span', null, t(`filter-${name}`)),
      h(
        'select',
        { name },
        h('option', { value: '' }, t('any')),
        options.map(([value, text]) => h('option', { value, selected: params[name] === value }, text)),
        params[name] && !options.some(([value]) => value === params[name])
          ? h('option', { value: params[name], selected: true }, params[name])
          : null,
      ),
    );
  const same = (list) => list.map((value) => [value, value]);
  const submit = (event) => {
    event.preventDefault();
    const asked = Object.fromEntries(new FormData(event.target));
    const id = asked.id?.trim().toLowerCase();
    if (isUuid(id)) go('exchange', {}, id);
    else if (id)
      (event.target.elements.id.setCustomValidity(t('not-an-id')), event.target.elements.id.reportValidity());
    else go('exchanges', { ...asked, id: '' });
  };
  return h(
    'form',
    { class: 'filter card', onsubmit: submit, 'aria-label': t('filter') },
    h(
      'div',
      { class: 'fields' },
      choice('consumer', bodies),
      choice('provider', bodies),
      choice(
        'outcome',
        ['OK', 'ERROR', 'REFUSED', 'FAILED'].map((code) => [code, named('outcome', code)]),
      ),
      h(
        'label',
        null,
        h('span', null, t('filter-from')),
        h('input', { type: 'date', name: 'from', value: params.from }),
      ),
      h(
        'label',
        null,
        h('span', null, t('filter-until')),
        h('input', { type: 'date', name: 'until', value: params.until }),
      ),
    ),
    h(
      'details',
      { open: Boolean(params.body || params.service || params.method || params.basis || params.reason) },
      h('summary', null, t('filter-more')),
      h(
        'div',
        { class: 'fields' },
        choice('body', bodies),
        choice('service', same(values('service'))),
        choice('method', same(values('method'))),
        choice(
          'basis',
          values('basis').map((code) => [code, words.get(code)?.law ? `${words.get(code).law} (${code})` : code]),
        ),
        choice(
          'reason',
          values('reason').map((code) => [code, named('reason', code)]),
        ),
        h(
          'label',
          null,
          h('span', null, t('filter-id')),
          h('input', {
            name: 'id',
            autocomplete: 'off',
            spellcheck: 'false',
            oninput: (event) => event.target.setCustomValidity(''),
          }),
        ),
      ),
    ),
    h(
      'p',
      { class: 'buttons' },
      h('button', { type: 'submit' }, t('search')),
      ' ',
      h('a', { href: href('exchanges') }, t('search-clear')),
    ),
  );
}

/** The wish in a form that the search understands. */
export function filterOf(params) {
  const filter = Object.fromEntries(FIELDS.map((field) => [field, params[field]]));
  const time = (text, clock) => Date.parse(`${text}T${clock}${BISHKEK}`) || 0;
  if (params.from) filter.from = time(params.from, '00:00:00');
  if (params.until) filter.to = time(params.until, '23:59:59.999');
  // Where an earlier search left off.
  const before = Number(params.before);
  if (before > 0) filter.to = Math.min(filter.to || before, before);
  return filter;
}

async function find(sources, params, words, results, isCurrent) {
  const [began, before] = [performance.now(), traffic.bytes];
  const progress = results.querySelector('.busy');
  let answer;
  try {
    answer = await search(
      sources,
      filterOf(params),
      PAGE,
      (read) => (progress.textContent = t('searching', { n: read })),
    );
  } catch (error) {
    results.replaceChildren(fault(t('fault'), String(error.message)));
    return;
  }
  if (!isCurrent()) return;
  const { found, failed, more, halted } = answer;
  const took = t('search-took', {
    seconds: number((performance.now() - began) / 1000, 1),
    size: bytes(traffic.bytes - before),
  });
  const columns = [
    { label: t('time') },
    { label: t('asks') },
    { label: t('is-asked') },
    { label: t('what-for') },
    { label: t('basis') },
    { label: t('outcome') },
  ];
  const rows = found.map(({ log, index, entry }) => [
    h(
      'a',
      { href: href('exchange', { at: `${log.number}.${index}` }, entry.exchange), class: 'nowrap' },
      shortMoment(entry.time),
    ),
    system(sources, entry.consumer),
    system(sources, entry.provider),
    method(entry),
    h('span', { class: 'nowrap' }, basis(words, entry.basis)),
    h(
      'span',
      { class: 'system' },
      outcome(entry.outcome),
      entry.reason ? h('span', { class: 'sub' }, named('reason', entry.reason)) : null,
    ),
  ]);
  const older = more
    ? h(
        'a',
        { class: 'button', href: href('exchanges', { ...params, before: more }) },
        t(halted ? 'search-on' : 'older'),
      )
    : null;
  const from = params.before ? h('a', { href: href('exchanges', { ...params, before: '' }) }, t('newest')) : null;
  const told = t('found', { n: found.length });
  results.replaceChildren(
    ...[
      ...failed.map(({ log, error }) => fault(t('log-failed', { origin: log.origin }), String(error.message))),
      h(
        'p',
        { class: 'note' },
        told,
        ' ',
        params.before ? t('found-before', { date: moment(Number(params.before), true) }) : null,
        ' ',
        halted ? t('found-halted', { date: moment(more, true) }) : null,
      ),
      found.length
        ? table(t('results'), columns, rows, { class: 'list' })
        : nothing(t(halted ? 'nothing-yet' : 'nothing-found')),
      h(
        'p',
        { class: 'buttons' },
        from,
        ' ',
        older,
        ' ',
        found.length
          ? csvButton(
              'exchanges',
              [
                'time',
                'exchange_id',
                'consumer',
                'provider',
                'service',
                'method',
                'legal_basis',
                'outcome',
                'grpc_status',
                'reason',
                'log',
                'entry',
              ],
              () =>
                found.map(({ log, index, entry }) => [
                  new Date(entry.time).toISOString(),
                  entry.exchange,
                  entry.consumer,
                  entry.provider,
                  entry.service,
                  entry.method,
                  entry.basis,
                  entry.outcome,
                  entry.status,
                  entry.reason,
                  log.origin,
                  index,
                ]),
            )
          : null,
      ),
      h('p', { class: 'note' }, took, ' ', t('hidden-note')),
    ].filter(Boolean),
  );
  announce(told);
}

// Who may ask whom: the grants in force, the law behind each, and what the logs tell of their use.

import { figure, h, nothing } from '../dom.js';
import { memberOf } from '../entry.js';
import { go, href } from '../links.js';
import { basis, choices, method, system } from '../parts.js';
import { shortName } from '../directory.js';
import { Tally } from '../tally.js';
import { day, moment, named, number, t } from '../text.js';

const dayOf = (number_) => new Date(number_ * 86_400_000).toISOString().slice(0, 10);

export async function grants({ sources, params }) {
  const [all, tally, words] = await Promise.all([sources.grants(), Tally.of(sources), sources.bases()]);
  const used = tally.groups().filter(({ as, outcome }) => as !== 'look' && outcome !== 'REFUSED');
  const claimed = new Set();
  const rows = all.map((grant) => ({ grant, use: use(grant, used, claimed) }));
  const past = used.filter((group) => !claimed.has(group) && group.consumer !== '…');
  const ofBody = (consumer, provider) =>
    !params.body || memberOf(consumer) === params.body || memberOf(provider) === params.body;
  const state = ['used', 'unused', 'past'].includes(params.show) ? params.show : 'all';
  const shown = rows.filter(
    ({ grant, use }) =>
      ofBody(grant.consumer, grant.provider) &&
      (state === 'all' ||
        (state === 'used' && use.count > 0) ||
        (state === 'unused' && use.count === 0 && !use.hidden)),
  );
  const unused = rows.filter(({ use }) => use.count === 0 && !use.hidden).length;
  return h(
    'div',
    null,
    h('p', { class: 'lead' }, t('grants-lead')),
    h('p', null, t('grants-counted', { n: all.length, unused })),
    h(
      'div',
      { class: 'line' },
      choices(
        t('filter'),
        state,
        ['all', 'used', 'unused', 'past'].map((key) => ({
          key,
          text: t(`grants-${key}`),
          link: href('grants', { ...params, show: key === 'all' ? '' : key }),
        })),
      ),
      bodyChoice(sources, all, params),
    ),
    state === 'past' ? null : grantsTable(sources, shown, words),
    state === 'all' || state === 'past'
      ? pastTable(
          sources,
          past.filter(({ consumer, provider }) => ofBody(consumer, provider)),
          words,
        )
      : null,
    h('p', { class: 'note' }, t('grants-note', { date: moment(tally.latest) })),
  );
}

/** How often the exchanges that a grant allows have taken place. */
function use(grant, used, claimed) {
  const of = (system, wish) => system === wish || memberOf(system) === wish;
  const isOf = (group) =>
    of(group.consumer, grant.consumer) &&
    of(group.provider, grant.provider) &&
    group.service === grant.service &&
    (grant.methods.includes('*') || grant.methods.includes(group.method)) &&
    (!group.basis || group.basis === grant.legal_basis.code);
  const found = used.filter(isOf);
  found.forEach((group) => claimed.add(group));
  return {
    hidden: grant.publication?.class !== 'public' && found.length === 0,
    count: found.reduce((sum, { count }) => sum + count, 0),
    first: Math.min(...found.map(({ first }) => first)),
    last: Math.max(...found.map(({ last }) => last)),
    methods: new Set(found.map(({ method }) => method)),
  };
}

function bodyChoice(sources, all, params) {
  const members = [...new Set(all.flatMap(({ consumer, provider }) => [memberOf(consumer), memberOf(provider)]))];
  const select = h(
    'select',
    { onchange: () => go('grants', { ...params, body: select.value }) },
    h('option', { value: '' }, t('all-bodies')),
    members.map((member) =>
      h('option', { value: member, selected: member === params.body }, shortName(sources.directory, member)),
    ),
  );
  return h('label', { class: 'inline' }, h('span', null, t('filter-body')), ' ', select);
}

function until(grant) {
  if (!grant.from && !grant.until) return t('no-end');
  return [
    grant.from ? t('from-day', { day: day(grant.from.slice(0, 10)) }) : null,
    grant.until ? t('until-day', { day: day(grant.until.slice(0, 10)) }) : null,
  ]
    .filter(Boolean)
    .join(' ');
}

/** What of an answer crosses, where the grant does not give all of it. */
function limits({ categories, fields }) {
  const list = (value) =>
    Array.isArray(value)
      ? value.join(', ')
      : Object.entries(value)
          .map(([method, paths]) => `${method === '*' ? '' : `${method}: `}${[paths].flat().join(', ')}`)
          .join('; ');
  const told = (key, value) =>
    value && typeof value === 'object' ? h('span', { class: 'sub' }, t(key, { list: list(value) })) : null;
  return [told('only-categories', categories), told('only-fields', fields)];
}

function usage({ use, grant }) {
  if (use.hidden)
    return h(
      'span',
      { class: 'system' },
      h('span', { class: 'badge plain' }, t('use-hidden')),
      h('span', { class: 'sub' }, t('use-hidden-told')),
    );
  if (use.count === 0) return h('span', { class: 'badge warn' }, t('use-none'));
  const never = grant.methods.filter((name) => name !== '*' && !use.methods.has(name));
  return h(
    'span',
    { class: 'system' },
    h(
      'span',
      null,
      h(
        'a',
        {
          href: href('exchanges', {
            consumer: grant.consumer,
            provider: grant.provider,
            service: grant.service,
            basis: grant.legal_basis.code,
          }),
        },
        t('use-count', { n: use.count }),
      ),
    ),
    h('span', { class: 'sub' }, t('use-days', { first: day(dayOf(use.first)), last: day(dayOf(use.last)) })),
    never.length ? h('span', { class: 'sub' }, t('use-never', { methods: never.join(', ') })) : null,
  );
}

function grantsTable(sources, rows, words) {
  if (rows.length === 0) return nothing(t('none'));
  const sorted = [...rows].sort((a, b) =>
    a.grant.provider + a.grant.consumer < b.grant.provider + b.grant.consumer ? -1 : 1,
  );
  const cards = sorted.map(({ grant, use }) =>
    h(
      'li',
      { class: 'card grant' },
      h(
        'p',
        { class: 'who' },
        system(sources, grant.consumer),
        h('span', { class: 'arrow' }, t('may-ask')),
        system(sources, grant.provider),
      ),
      h(
        'div',
        { class: 'cells' },
        h('div', null, h('p', { class: 'kicker' }, t('law')), basis(words, grant.legal_basis.code, true)),
        h(
          'div',
          null,
          h('p', { class: 'kicker' }, t('methods')),
          h(
            'span',
            { class: 'system' },
            h('span', { class: 'code' }, grant.methods.includes('*') ? t('all-methods') : grant.methods.join(', ')),
            h('span', { class: 'sub' }, grant.service),
            limits(grant),
          ),
        ),
        h(
          'div',
          null,
          h('p', { class: 'kicker' }, t('valid')),
          until(grant),
          ' ',
          grant.until && Date.parse(grant.until) < Date.now()
            ? h('span', { class: 'badge bad' }, t('grant-ended'))
            : null,
          h('span', { class: 'sub' }, ' · ', classOf(grant)),
        ),
        h('div', null, h('p', { class: 'kicker' }, t('used')), usage({ use, grant })),
      ),
    ),
  );
  return figure({
    title: t('grants-in-force'),
    name: 'grants',
    picture: h('ul', { class: 'grants' }, cards),
    columns: [
      'asks',
      'is-asked',
      'service',
      'methods',
      'basis',
      'law',
      'valid-from',
      'valid-until',
      'class',
      'used-count',
      'used-first',
      'used-last',
    ].map((key) => ({ label: t(key) })),
    rows: sorted.map(({ grant, use }) => [
      grant.consumer,
      grant.provider,
      grant.service,
      grant.methods.join(' '),
      grant.legal_basis.code,
      grant.legal_basis.text,
      grant.from ?? '',
      grant.until ?? '',
      grant.publication?.class ?? '',
      use.count,
      use.count ? dayOf(use.first) : '',
      use.count ? dayOf(use.last) : '',
    ]),
  });
}

/** In which class its exchanges are published; by method where these differ. */
function classOf({ publication }) {
  const word = (found) => named('class', String(found?.class ?? 'public').toUpperCase());
  if (publication?.class !== 'by-method') return word(publication);
  return Object.entries(publication.methods ?? {})
    .map(([method, found]) => `${method}: ${word(found)}`)
    .join(', ');
}

/** What has passed on grounds for which no grant is in force any more, or whose provider's grants are not here. */
function pastTable(sources, groups, words) {
  if (groups.length === 0) return null;
  return figure({
    title: t('grants-past-title'),
    note: t('grants-past-note'),
    name: 'without-grant',
    picture: h(
      'ul',
      { class: 'plainlist' },
      groups
        .slice(0, 20)
        .map((group) =>
          h(
            'li',
            null,
            system(sources, group.consumer),
            ' → ',
            system(sources, group.provider),
            ' ',
            method(group),
            ' ',
            basis(words, group.basis),
            ' ',
            t('use-count', { n: group.count }),
          ),
        ),
    ),
    columns: [
      { label: t('asks') },
      { label: t('is-asked') },
      { label: t('service') },
      { label: t('method') },
      { label: t('basis') },
      { label: t('count'), number: true, show: (count) => number(count) },
      { label: t('used-last') },
    ],
    rows: groups.map((group) => [
      group.consumer,
      group.provider,
      group.service,
      group.method,
      group.basis,
      group.count,
      dayOf(group.last),
    ]),
  });
}

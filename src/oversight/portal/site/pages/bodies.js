// State bodies: all of them, and of each what it asks and is asked, how that goes over time, and which days stand out.

import { bars } from '../chart.js';
import { fullName, shortName } from '../directory.js';
import { figure, h, nothing, table } from '../dom.js';
import { memberOf } from '../entry.js';
import { href } from '../links.js';
import { barList, bodyLink, figureOf } from '../parts.js';
import { NOTHING, Tally, add, filled, passed, sumBy, total, unusual } from '../tally.js';
import { day, moment, named, number, percent, t } from '../text.js';

const asks = (member) => (from) => from === member;
const asked = (member) => (from, to) => to === member;

const sumOf = (spans, counts) => spans.reduce((sum, span) => add(sum, passed(span, counts)), { ...NOTHING });

export async function bodies({ sources }) {
  const tally = await Tally.of(sources);
  const spans = tally.spans('months');
  const seen = new Set(spans.flatMap((span) => [...span.pairs.keys()].flatMap((pair) => pair.split('>'))));
  const members = [...new Set([...sources.directory.members.keys(), ...seen])].filter(
    (member) => member && member !== '…',
  );
  const rows = members
    .map((member) => {
      const [out, back] = [sumOf(spans, asks(member)), sumOf(spans, asked(member))];
      return [member, total(out), total(back), out.refused, Boolean(sources.of(member))];
    })
    .sort((a, b) => b[1] + b[2] - a[1] - a[2]);
  const columns = [
    { label: t('body') },
    { label: t('asks-count'), number: true },
    { label: t('asked-count'), number: true },
    { label: t('refused-count'), number: true },
    { label: t('log-here') },
  ];
  return h(
    'div',
    null,
    h('p', { class: 'lead' }, t('bodies-lead')),
    table(
      t('title-bodies'),
      columns,
      rows.map(([member, out, back, refused, has]) => [
        h('span', { class: 'system' }, bodyLink(sources, member), h('span', { class: 'sub' }, member)),
        number(out),
        number(back),
        number(refused),
        t(has ? 'yes' : 'no'),
      ]),
      { class: 'list' },
    ),
    h('p', { class: 'note' }, t('counted-note', { date: moment(tally.latest) })),
  );
}

export async function body({ sources, rest, heading }) {
  const member = rest;
  const tally = await Tally.of(sources);
  heading.textContent = shortName(sources.directory, member);
  document.title = `${heading.textContent} · Kopuro`;
  const months = tally.spans('months');
  const [out, back] = [sumOf(months, asks(member)), sumOf(months, asked(member))];
  const log = sources.of(member);
  const groups = tally
    .groups()
    .filter(
      ({ as, consumer, provider }) => as !== 'look' && (memberOf(consumer) === member || memberOf(provider) === member),
    );
  return h(
    'div',
    null,
    h('p', { class: 'lead' }, fullName(sources.directory, member)),
    h(
      'p',
      { class: 'small' },
      h('span', { class: 'code' }, member),
      log ? [' · ', t('log-named', { origin: log.origin })] : [' · ', t('side-no-log')],
    ),
    h(
      'section',
      { class: 'tiles', 'aria-label': t('numbers') },
      figureOf(number(total(out)), t('asks-count')),
      figureOf(number(total(back)), t('asked-count')),
      figureOf(percent(out.refused, total(out)), t('own-refused'), t('refused-note', { n: out.refused })),
      figureOf(percent(back.refused, total(back)), t('others-refused'), t('refused-note', { n: back.refused })),
    ),
    h(
      'p',
      { class: 'buttons' },
      h('a', { class: 'button', href: href('exchanges', { body: member }) }, t('its-exchanges')),
      ' ',
      h('a', { class: 'button quiet', href: href('grants', { body: member }) }, t('its-grants')),
    ),
    trend(tally, asks(member), 'asks', t('trend-asks')),
    trend(tally, asked(member), 'asked', t('trend-asked')),
    h(
      'div',
      { class: 'two' },
      partners(
        sources,
        groups.filter(({ consumer }) => memberOf(consumer) === member),
        'provider',
        t('asks-whom'),
      ),
      partners(
        sources,
        groups.filter(({ provider }) => memberOf(provider) === member),
        'consumer',
        t('asked-by-whom'),
      ),
    ),
    h(
      'div',
      { class: 'two' },
      services(
        groups.filter(({ consumer }) => memberOf(consumer) === member),
        t('asks-what'),
      ),
      services(
        groups.filter(({ provider }) => memberOf(provider) === member),
        t('asked-what'),
      ),
    ),
    h('p', { class: 'note' }, t('counted-note', { date: moment(tally.latest) })),
  );
}

/** What passed by day, and the days that stand out, each with the reason. */
function trend(tally, counts, name, title) {
  const days = filled(tally.spans('days'));
  const shown = days.map((span) => {
    const ends = passed(span, counts);
    return { name: span.name, count: total(ends), part: ends.refused };
  });
  if (!shown.some(({ count }) => count > 0)) return null;
  const far = [
    ...unusual(shown, ({ count }) => count).map((one) => ({ ...one, of: 'all' })),
    ...unusual(shown, ({ part }) => part).map((one) => ({ ...one, of: 'refused' })),
  ];
  const told = far.map(({ name, count, low, high, above, of }) =>
    h(
      'li',
      null,
      h('strong', null, day(name)),
      ': ',
      t(of === 'all' ? 'unusual-told' : 'unusual-refused', { n: count, low, high }),
      ' ',
      t(above ? 'unusual-above' : 'unusual-below'),
    ),
  );
  return h(
    'div',
    null,
    figure({
      title,
      name: `${name}-by-day`,
      picture: bars({
        spans: shown,
        label: t('exchanges-label'),
        partLabel: t('refused-label'),
        marks: far.map(({ name }) => name),
        told: t('days-told', { n: shown.length, most: Math.max(...shown.map(({ count }) => count)), day: '' }),
      }),
      columns: [
        { label: t('day'), show: (name) => day(name) },
        { label: t('exchanges-label'), number: true, show: (count) => number(count) },
        { label: t('refused-label'), number: true, show: (count) => number(count) },
        { label: t('unusual') },
      ],
      rows: shown.map(({ name, count, part }) => [
        name,
        count,
        part,
        far
          .filter((one) => one.name === name)
          .map(({ low, high }) => `${low}–${high}`)
          .join('; '),
      ]),
    }),
    h(
      'section',
      { class: 'unusual', 'aria-label': t('unusual') },
      told.length
        ? h('ul', null, told)
        : h('p', { class: 'note' }, t(shown.length < 29 ? 'unusual-too-short' : 'unusual-none')),
      h('details', null, h('summary', null, t('unusual-how')), h('p', null, t('unusual-how-told'))),
    ),
  );
}

function partners(sources, groups, key, title) {
  const rows = sumBy(groups, (group) => memberOf(group[key])).map(({ key: other, count }) => ({
    key: other,
    label: other && other !== '…' ? shortName(sources.directory, other) : t('nobody-named'),
    count,
    link: other && other !== '…' ? href('body', {}, other) : null,
  }));
  return rows.length
    ? list(title, rows, t('body'))
    : h('div', { class: 'card' }, h('h3', null, title), nothing(t('none')));
}

function services(groups, title) {
  const rows = sumBy(groups, ({ service, method, outcome }) =>
    outcome === 'REFUSED' ? `${service}/${method} ` : `${service}/${method}`,
  ).map(({ key, count }) => {
    const [name, refused] = [key.trim(), key.endsWith(' ')];
    const [service, method] = name.split('/');
    return {
      key: refused ? `${name} (${named('outcome', 'REFUSED')})` : name,
      label: `${method} · ${service}${refused ? ` (${named('outcome', 'REFUSED')})` : ''}`,
      count,
      link: href('exchanges', { service, method, outcome: refused ? 'REFUSED' : '' }),
    };
  });
  return rows.length ? list(title, rows, t('what-for')) : null;
}

const list = (title, rows, label) =>
  figure({
    title,
    name: 'list',
    picture: h('div', null, barList(rows)),
    columns: [{ label }, { label: t('count'), number: true, show: (count) => number(count) }],
    rows: rows.map(({ key, count }) => [key, count]),
  });

// Overview: how much, between whom, on what grounds, and whether the logs can be believed.

import { bars } from '../chart.js';
import { shortName } from '../directory.js';
import { fault, figure, h, nothing } from '../dom.js';
import { flow } from '../flow.js';
import { href } from '../links.js';
import { barList, bodyLink, choices, figureOf } from '../parts.js';
import { NOTHING, Tally, add, filled, passed, sumBy, total } from '../tally.js';
import { age, day, moment, named, number, percent, t } from '../text.js';
import { signed } from '../tlog.js';
import { witnesses } from '../verify.js';

const PERIODS = { 30: 30, 92: 92, all: 0 };

export async function overview({ sources, params }) {
  const tally = await Tally.of(sources);
  const period = params.period in PERIODS ? params.period : '30';
  const [report, standing, bases] = await Promise.all([
    sources.report().catch(() => null),
    Promise.all(sources.logs.map((log) => stand(log, sources))),
    sources.bases(),
  ]);
  const parts = [h('p', { class: 'lead' }, t('overview-lead')), verdict(report, standing, sources)];
  if (tally.found.length === 0)
    return h('div', null, parts, nothing(t('no-summaries')), logs(sources, standing, report));
  const spans = spansOf(tally, period);
  const ends = spans.reduce((sum, span) => add(sum, passed(span)), { ...NOTHING });
  const options = Object.keys(PERIODS).map((key) => ({
    key,
    text: t(`period-${key}`),
    link: href('', { ...params, period: key }),
  }));
  return h(
    'div',
    null,
    parts,
    choices(t('period'), period, options),
    tally.missing ? fault(t('some-missing'), t('some-missing-told', { n: tally.missing })) : null,
    numbers(spans, ends),
    flowCard(sources, spans, params),
    daysCard(spans),
    h('div', { class: 'two' }, basisCard(tally, bases), reasonCard(tally)),
    logs(sources, standing, report),
    h('p', { class: 'note' }, t('counted-note', { date: moment(tally.latest) })),
  );
}

function spansOf(tally, period) {
  if (period === 'all') {
    const months = tally.spans('months');
    if (months.length > 3) return months;
    return filled(tally.spans('days'));
  }
  const days = filled(tally.spans('days'));
  return days.slice(-PERIODS[period]);
}

/** Whether a log's checkpoint is signed as it must be, and who has cosigned it. */
async function stand(log, sources) {
  try {
    const [checkpoint, key] = await Promise.all([log.checkpoint(), log.key()]);
    const isSigned = await signed(checkpoint, key).catch(() => null);
    const seen = await witnesses(checkpoint, sources.policy);
    const names = new Set(seen.filter(({ ok }) => ok).map(({ name }) => name));
    const last = Math.max(0, ...seen.map(({ time }) => time));
    return {
      log,
      size: checkpoint.size,
      isSigned,
      seen,
      enough: sources.policy ? sources.policy.met(names) : null,
      last,
    };
  } catch (error) {
    return { log, error, isSigned: false, seen: [], enough: false, last: 0, size: 0 };
  }
}

function verdict(report, standing, sources) {
  const wrongSignature = standing.filter(({ isSigned }) => isSigned === false);
  const fewWitnesses = standing.filter(({ enough }) => enough === false);
  const isBad = wrongSignature.length > 0 || fewWitnesses.length > 0 || (report && !report.ok);
  const told = [];
  if (!report) told.push(t('verdict-no-monitor'));
  else if (report.exchanges.wrong > 0) told.push(t('verdict-wrong', { n: report.exchanges.wrong }));
  else told.push(t('verdict-agreed', { n: report.exchanges.agreed }));
  if (report && !report.ok && report.exchanges.wrong === 0) told.push(t('verdict-logs-wrong'));
  if (wrongSignature.length) told.push(t('verdict-unsigned', { n: wrongSignature.length }));
  else told.push(t('verdict-signed', { n: standing.length }));
  if (sources.policy) told.push(t(fewWitnesses.length ? 'verdict-unwitnessed' : 'verdict-witnessed'));
  const state = isBad ? 'bad' : report ? 'good' : 'plain';
  return h(
    'section',
    { class: `verdict ${state}`, 'aria-labelledby': 'verdict' },
    h('h2', { id: 'verdict' }, t(`verdict-${state}`)),
    h('p', null, told.join(' ')),
    report ? h('p', { class: 'small' }, t('monitor-looked', { age: age(Date.now() - report.at_unix_ms) })) : null,
  );
}

function numbers(spans, ends) {
  const all = total(ends);
  const entries = spans.reduce((sum, span) => sum + span.entries, 0);
  const sealed = spans.reduce((sum, span) => sum + span.sealed, 0);
  const delayed = spans.reduce((sum, span) => sum + span.delayed, 0);
  return h(
    'section',
    { class: 'tiles', 'aria-label': t('numbers') },
    figureOf(number(all), t('exchanges-made')),
    figureOf(percent(ends.ok + ends.error, all), t('answered-share'), t('answered-note', { n: ends.ok + ends.error })),
    figureOf(percent(ends.refused, all), t('refused-share'), t('refused-note', { n: ends.refused })),
    figureOf(percent(sealed, entries), t('sealed-share'), t('sealed-note', { sealed, delayed })),
  );
}

function flowCard(sources, spans, params) {
  const pairs = new Map();
  for (const span of spans)
    for (const [pair, ends] of span.pairs) pairs.set(pair, add(pairs.get(pair) ?? { ...NOTHING }, ends));
  const links = [...pairs]
    .map(([pair, ends]) => {
      const [from, to] = pair.split('>');
      return {
        from,
        to,
        count: total(ends),
        refused: ends.refused,
        ends,
        href: href('exchanges', { consumer: from, provider: to, lang: params.lang }),
      };
    })
    .sort((a, b) => b.count - a.count);
  const name = (member) => (member && member !== '…' ? shortName(sources.directory, member) : t('nobody-named'));
  const shown = links.slice(0, 40);
  return figure({
    title: t('flow-title'),
    note: links.length > shown.length ? t('flow-note-cut', { n: shown.length }) : t('flow-note'),
    name: 'who-asks-whom',
    picture: shown.length
      ? flow({
          links: shown,
          name,
          told: t('flow-told', { n: links.length }),
          bodyHref: (member) => href('body', {}, member),
        })
      : nothing(t('none')),
    columns: [
      { label: t('asks'), show: (member) => bodyLink(sources, member) },
      { label: t('is-asked'), show: (member) => (member ? bodyLink(sources, member) : t('nobody-named')) },
      ...['ok', 'error', 'refused', 'failed'].map((end) => ({
        label: named('outcome', end.toUpperCase()),
        number: true,
        show: (count) => number(count),
      })),
    ],
    rows: links.map(({ from, to, ends }) => [from, to, ends.ok, ends.error, ends.refused, ends.failed]),
  });
}

function daysCard(spans) {
  const shown = spans.map((span) => {
    const ends = passed(span);
    return { name: span.name, count: total(ends), part: ends.refused, ends, sealed: span.sealed };
  });
  const most = shown.reduce((most, span) => (span.count > (most?.count ?? -1) ? span : most), null);
  return figure({
    title: t(shown[0]?.name.length === 7 ? 'months-title' : 'days-title'),
    note: t('days-note'),
    name: 'exchanges-by-day',
    picture: bars({
      spans: shown,
      label: t('exchanges-label'),
      partLabel: t('refused-label'),
      told: most ? t('days-told', { n: shown.length, most: most.count, day: day(most.name) }) : t('none'),
    }),
    columns: [
      { label: t('day'), show: (name) => day(name) },
      ...['ok', 'error', 'refused', 'failed'].map((end) => ({
        label: named('outcome', end.toUpperCase()),
        number: true,
        show: (count) => number(count),
      })),
      { label: t('sealed-entries'), number: true, show: (count) => number(count) },
    ],
    rows: shown.map(({ name, ends, sealed }) => [name, ends.ok, ends.error, ends.refused, ends.failed, sealed]),
  });
}

function basisCard(tally, bases) {
  const lawful = tally.groups().filter(({ as, basis }) => as !== 'look' && basis && basis !== '…');
  const rows = sumBy(lawful, ({ basis }) => basis).map(({ key, count }) => ({
    key,
    label: bases.get(key)?.law ? `${bases.get(key).law} (${key})` : key,
    count,
    link: href('exchanges', { basis: key }),
  }));
  return listCard('basis', t('basis-title'), t('all-time-note'), rows, t('basis'));
}

function reasonCard(tally) {
  const refused = tally.groups().filter(({ outcome }) => outcome === 'REFUSED');
  const rows = sumBy(refused, ({ reason }) => reason).map(({ key, count }) => ({
    key,
    label: named('reason', key),
    count,
    link: href('exchanges', { outcome: 'REFUSED', reason: key }),
  }));
  return listCard('refused', t('reason-title'), t('reason-note'), rows, t('reason'));
}

function listCard(name, title, note, rows, label) {
  return figure({
    title,
    note,
    name,
    picture: h('div', null, barList(rows, 6)),
    columns: [{ label }, { label: t('count'), number: true, show: (count) => number(count) }],
    rows: rows.map(({ key, count }) => [key, count]),
  });
}

function logs(sources, standing, report) {
  const card = ({ log, size, isSigned, seen, last, error }) => {
    const found = report?.logs?.find(({ origin }) => origin === log.origin);
    const state =
      error || isSigned === false || (found && found.condition && found.condition !== 'GOOD') ? 'bad' : 'good';
    return h(
      'li',
      { class: `card log ${state}` },
      h('h3', null, bodyLink(sources, log.member)),
      h('p', { class: 'code small' }, log.origin),
      error
        ? h('p', null, t('log-unreadable'), ' ', String(error.message))
        : [
            h('p', null, t('log-size', { n: size })),
            h('p', null, t(isSigned ? 'log-signed' : isSigned === null ? 'log-signature-unknown' : 'log-unsigned')),
            h(
              'p',
              null,
              seen.filter(({ ok }) => ok).length
                ? t('log-witnessed', {
                    names: seen
                      .filter(({ ok }) => ok)
                      .map(({ name }) => name)
                      .join(', '),
                    age: age(Date.now() - last),
                  })
                : t('log-unwitnessed'),
            ),
          ],
    );
  };
  return h(
    'section',
    { 'aria-labelledby': 'logs' },
    h('h2', { id: 'logs' }, t('logs-title')),
    h('p', { class: 'note' }, t('logs-note')),
    h('ul', { class: 'cards' }, standing.map(card)),
  );
}

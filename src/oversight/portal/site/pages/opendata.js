// Open data: what can be downloaded, what its fields mean, how it is checked, how it is cited.

import { bodyLink, facts } from '../parts.js';
import { figure, h, nothing, table } from '../dom.js';
import { day, lang, moment, number, t } from '../text.js';
import { hex, sha256 } from '../tlog.js';

const SHOWN = 31;

export async function openData({ sources }) {
  const parts = await Promise.all(sources.logs.map((log) => logCard(sources, log)));
  const dictionary = await firstOf(sources.logs, (log) => log.dictionary());
  return h(
    'div',
    null,
    h('p', { class: 'lead' }, t('opendata-lead')),
    h('h2', null, t('downloads')),
    parts,
    dictionary ? dictionaryCard(dictionary) : null,
    h(
      'section',
      { class: 'card', 'aria-labelledby': 'how' },
      h('h2', { id: 'how' }, t('how-to-verify')),
      h('p', null, t('how-to-verify-told')),
      sources.logs
        .slice(0, 1)
        .map((log) => h('pre', { tabindex: '0', 'aria-label': t('how-to-verify') }, h('code', null, commands(log)))),
      h('p', null, t('keys-from')),
    ),
    h(
      'section',
      { class: 'card', 'aria-labelledby': 'cite' },
      h('h2', { id: 'cite' }, t('citation')),
      h('p', null, t('citation-told')),
      h('pre', { tabindex: '0', 'aria-label': t('citation') }, h('code', null, await citation(sources))),
      h('p', { class: 'note' }, t('licence')),
    ),
  );
}

async function firstOf(logs, read) {
  for (const log of logs) {
    try {
      return await read(log);
    } catch {
      /* the next one */
    }
  }
  return null;
}

async function logCard(sources, log) {
  const list = await log.days().catch(() => null);
  const rows = list
    ? list
        .trim()
        .split('\n')
        .slice(1)
        .map((line) => line.split(','))
        .reverse()
    : [];
  const files = [
    'checkpoint',
    'vkey',
    'directory',
    'grants.json',
    'entry.proto',
    'open-data/summary.json',
    'open-data/SHA256SUMS',
  ];
  const link = (path, text = path) => h('a', { href: log.url + path }, text);
  const picture = [
    facts([
      [t('body'), bodyLink(sources, log.member)],
      [t('address'), h('a', { href: log.url, class: 'code' }, log.url)],
      [t('key'), h('span', { class: 'code' }, log.vkey)],
    ]),
    h(
      'p',
      null,
      t('files-now'),
      ' ',
      files.map((path, index) => [index ? ' · ' : '', link(path)]),
    ),
    rows.length === 0
      ? nothing(t(list === null ? 'no-open-data' : 'no-days-yet'))
      : table(
          t('days-of', { origin: log.origin }),
          [
            { label: t('day') },
            { label: t('rows'), number: true },
            { label: t('sealed-entries'), number: true },
            { label: 'CSV' },
            { label: 'Parquet' },
            { label: t('checksum') },
          ],
          rows
            .slice(0, SHOWN)
            .map(([name, , , count, , sealed, csv, parquet]) => [
              day(name),
              number(Number(count)),
              number(Number(sealed)),
              link(`open-data/${name}.csv`, 'CSV'),
              link(`open-data/${name}.parquet`, 'Parquet'),
              checkButton(log, name, csv, parquet),
            ]),
          { class: 'list' },
        ),
  ];
  return h('section', { class: 'card', 'aria-label': log.origin }, h('h3', null, log.origin), picture);
}

/** Fetches a day's files and compares them with the list. */
function checkButton(log, name, csv, parquet) {
  const told = h('span', { role: 'status' });
  const check = async () => {
    told.textContent = t('state-busy');
    try {
      const files = await Promise.all(['csv', 'parquet'].map((form) => log.file(`open-data/${name}.${form}`)));
      const sums = await Promise.all(files.map((bytes) => sha256(bytes)));
      const holds = hex(sums[0]) === csv && hex(sums[1]) === parquet;
      told.className = `badge ${holds ? 'good' : 'bad'}`;
      told.textContent = t(holds ? 'checksum-good' : 'checksum-bad');
    } catch (error) {
      told.className = 'badge bad';
      told.textContent = String(error.message);
    }
  };
  return h(
    'span',
    null,
    h(
      'button',
      { type: 'button', class: 'quiet', onclick: check, 'aria-label': `${t('checksum-check')} ${name}` },
      t('checksum-check'),
    ),
    ' ',
    told,
  );
}

function dictionaryCard(text) {
  const [head, ...rows] = parseCsv(text);
  const told = head.indexOf(lang());
  return figure({
    title: t('dictionary'),
    note: t('dictionary-note'),
    name: 'dictionary',
    picture: null,
    columns: [{ label: t('file') }, { label: t('field'), code: true }, { label: t('type') }, { label: t('meaning') }],
    rows: rows.map((row) => [row[0], row[1], row[2], row[told]]),
  });
}

/** RFC 4180. */
export function parseCsv(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
    rows.at(-1).push(quoted !== undefined ? quoted.replaceAll('""', '"') : plain);
    if (end !== ',') rows.push([]);
  }
  return rows.filter((row) => row.length > 1);
}

const commands = (log) =>
  [
    `kopuro log verify '${log.url.replace(/\/$/, '')}' \\`,
    `    --vkey '${log.vkey}' --state seen`,
    '',
    '# sha256sum, of the folder open-data:',
    'sha256sum -c SHA256SUMS',
    '',
    '# aics-tlog (PyPI), sigstore-js: docs/verify.md',
  ].join('\n');

async function citation(sources) {
  const lines = await Promise.all(
    sources.logs.map(async (log) => {
      const checkpoint = await log.checkpoint().catch(() => null);
      return checkpoint
        ? `${log.origin}, ${t('citation-size', { n: checkpoint.size })}, ${hex(checkpoint.root)}`
        : log.origin;
    }),
  );
  return `${t('citation-head', { date: moment(Date.now()) })}\n${lines.join('\n')}`;
}

// What several pages show alike: names of bodies, outcomes, lists with bars, choices of a period, steps of a check.

import { fullName, shortName } from './directory.js';
import { h } from './dom.js';
import { memberOf, systemName } from './entry.js';
import { href } from './links.js';
import { lang, named, number, percent, t } from './text.js';

/** A state body by its name, leading to its page. */
export function bodyLink(sources, member) {
  if (!member) return t('nobody-named');
  return h(
    'a',
    { href: href('body', {}, member), title: fullName(sources.directory, member) },
    shortName(sources.directory, member),
  );
}

/** A system: the body's name, and which of its systems. */
export function system(sources, id) {
  if (!id) return t('nobody-named');
  const name = systemName(id);
  return h(
    'span',
    { class: 'system' },
    bodyLink(sources, memberOf(id)),
    name ? h('span', { class: 'sub' }, name) : null,
  );
}

/** A service and method: the method, and below it the service. */
export const method = ({ service, method }) =>
  h('span', { class: 'system' }, h('span', { class: 'code' }, method || '–'), h('span', { class: 'sub' }, service));

/** How it ended, in a word and a colour. */
export function outcome(code) {
  const tone = { OK: 'good', ERROR: 'plain', REFUSED: 'bad', FAILED: 'warn' }[code] ?? 'plain';
  return h('span', { class: `badge ${tone}` }, named('outcome', code || 'none'));
}

/** A legal basis: its code, and the law in words where it is known. */
export function basis(words, code, long = false) {
  if (!code) return '–';
  const found = words.get(code);
  const law = found?.law;
  return long && law
    ? h(
        'span',
        { class: 'system' },
        law,
        found[lang()] ? h('span', { class: 'sub' }, found[lang()]) : null,
        h('span', { class: 'sub code' }, code),
      )
    : h('span', { class: 'code', title: law }, code);
}

/** A list with a bar for each: rows are { label, count, link }. */
export function barList(rows, most = 8) {
  if (rows.length === 0) return h('p', { class: 'nothing' }, t('none'));
  const [top, all] = [Math.max(...rows.map(({ count }) => count)), rows.reduce((sum, { count }) => sum + count, 0)];
  const item = ({ label, count, link }) => {
    const bar = h('span', { class: 'bar', 'aria-hidden': 'true' });
    bar.style.setProperty('--share', `${Math.max(0.5, (100 * count) / top)}%`);
    return h(
      'li',
      null,
      h('span', { class: 'what' }, link ? h('a', { href: link }, label) : label),
      h('span', { class: 'much' }, number(count), h('span', { class: 'sub' }, ` ${percent(count, all)}`)),
      bar,
    );
  };
  const rest = rows.slice(most);
  return [
    h('ol', { class: 'bars' }, rows.slice(0, most).map(item)),
    rest.length
      ? h(
          'details',
          null,
          h('summary', null, t('show-more', { n: rest.length })),
          h('ol', { class: 'bars' }, rest.map(item)),
        )
      : null,
  ];
}

/** Links of which one is where we are. */
export function choices(label, current, all) {
  return h(
    'nav',
    { class: 'choices', 'aria-label': label },
    all.map(({ key, text, link }) =>
      h('a', { href: link, 'aria-current': key === current ? 'true' : undefined }, text),
    ),
  );
}

/** A large number with what it counts. */
export const figureOf = (value, label, note, tone) =>
  h(
    'div',
    { class: `tile ${tone ?? ''}` },
    h('p', { class: 'value' }, value),
    h('p', { class: 'label' }, label),
    note ? h('p', { class: 'note' }, note) : null,
  );

/** A step of a check: state is good, bad, warn or busy. */
export function step({ state, title, told, detail }) {
  return h(
    'li',
    { class: `step ${state}` },
    h('span', { class: 'sign', 'aria-hidden': 'true' }, { good: '✓', bad: '✗', warn: '!', busy: '…' }[state]),
    h(
      'div',
      null,
      h(
        'p',
        { class: 'title' },
        title,
        ' ',
        h('span', { class: `badge ${state === 'busy' ? 'plain' : state}` }, t(`state-${state}`)),
      ),
      told ? h('p', null, told) : null,
      detail ? h('p', { class: 'code small' }, detail) : null,
    ),
  );
}

export const facts = (rows) =>
  h(
    'dl',
    { class: 'facts' },
    rows
      .filter(([, value]) => value !== '' && value !== null && value !== undefined)
      .map(([name, value]) => h('div', null, h('dt', null, name), h('dd', null, value))),
  );

// Elements without markup in strings: nothing that comes from a log can become more than text.

import { t } from './text.js';

const SVG = 'http://www.w3.org/2000/svg';

function make(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** An HTML element. */
export const h = (tag, properties, ...children) => make(document.createElement(tag), properties, children);

/** An SVG element. */
export const svg = (tag, properties, ...children) => make(document.createElementNS(SVG, tag), properties, children);

let live = null;

/** The region through which a screen reader hears what changed. */
export function liveRegion() {
  live ??= h('p', { class: 'unseen', role: 'status', 'aria-live': 'polite' });
  return live;
}

export function announce(text) {
  if (live) live.textContent = text;
}

/** A table: columns are { label, number, code }, cells are text or nodes. Scrolls sideways by itself where it must. */
export function table(caption, columns, rows, properties = {}) {
  const cell = (value, index) =>
    h(
      'td',
      {
        class: columns[index].number ? 'number' : columns[index].code ? 'code' : undefined,
        'data-label': columns[index].label,
      },
      value,
    );
  const head = columns.map((column) =>
    h('th', { scope: 'col', class: column.number ? 'number' : undefined }, column.label),
  );
  return h(
    'div',
    { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    h(
      'table',
      properties,
      h('caption', { class: properties.class?.includes('shown') ? undefined : 'unseen' }, caption),
      h('thead', null, h('tr', null, head)),
      h(
        'tbody',
        null,
        rows.map((row) => h('tr', null, row.map(cell))),
      ),
    ),
  );
}

const quoted = (value) => {
  // A cell that a spreadsheet would run is told as text.
  const text = String(value ?? '').replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

/** Rows as RFC 4180 has them. */
export const csv = (columns, rows) => [columns, ...rows].map((row) => row.map(quoted).join(',')).join('\r\n') + '\r\n';

/** A button that saves what is on screen. */
export function csvButton(name, columns, rows) {
  const save = () => {
    const url = URL.createObjectURL(new Blob(['\ufeff', csv(columns, rows())], { type: 'text/csv' }));
    h('a', { href: url, download: `${name}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };
  return h('button', { type: 'button', class: 'quiet', onclick: save }, t('save-csv'));
}

/** A picture with the table behind it, and that table as a file. */
export function figure({ title, note, name, picture, columns, rows }) {
  const shown = rows.map((row) => row.map((value, index) => columns[index].show?.(value) ?? value));
  return h(
    'figure',
    { class: 'card' },
    h('figcaption', null, h('h3', null, title), note ? h('p', { class: 'note' }, note) : null),
    picture,
    h(
      'div',
      { class: 'below' },
      h('details', { open: !picture }, h('summary', null, t('show-table')), table(title, columns, shown)),
      csvButton(
        name,
        columns.map((column) => column.label),
        () => rows,
      ),
    ),
  );
}

export const busy = () => h('p', { class: 'busy', role: 'status' }, t('loading'));

/** Something to say where there is nothing to show. */
export const nothing = (text) => h('p', { class: 'nothing' }, text);

export function fault(title, text) {
  return h('div', { class: 'fault', role: 'alert' }, h('strong', null, title), ' ', text);
}

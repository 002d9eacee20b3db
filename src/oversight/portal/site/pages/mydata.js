// My data: how a person learns who asked about them, and the check of an opening file.

import { announce, fault, h } from '../dom.js';
import { href } from '../links.js';
import { checkOpening, readOpening } from '../opening.js';
import { facts, method, outcome, step, system } from '../parts.js';
import { moment, named, t } from '../text.js';

export async function myData({ sources }) {
  const steps = ['ask', 'answer', 'check'];
  return h(
    'div',
    null,
    h('p', { class: 'lead' }, t('mydata-lead')),
    h(
      'section',
      { 'aria-labelledby': 'how' },
      h('h2', { id: 'how' }, t('mydata-how')),
      h(
        'ol',
        { class: 'how' },
        steps.map((name) =>
          h('li', { class: 'card' }, h('h3', null, t(`mydata-${name}`)), h('p', null, t(`mydata-${name}-told`))),
        ),
      ),
    ),
    h(
      'section',
      { 'aria-labelledby': 'rights' },
      h('h2', { id: 'rights' }, t('mydata-not')),
      h(
        'ul',
        null,
        ['hidden', 'erased', 'nobody'].map((name) => h('li', null, t(`mydata-not-${name}`))),
      ),
    ),
    checker(sources),
  );
}

function checker(sources) {
  const result = h('div', { class: 'steps', 'aria-live': 'polite' });
  const input = h('input', { type: 'file', id: 'opening', accept: '.json,application/json' });
  const check = async (file) => {
    result.replaceChildren();
    let opening;
    try {
      opening = readOpening(await file.text());
    } catch (error) {
      result.replaceChildren(fault(t('opening-unreadable'), String(error.message)));
      return;
    }
    const list = h('ol', null);
    result.append(list);
    const checks = checkOpening(opening, sources.logs);
    const states = [];
    let found = null;
    try {
      for (;;) {
        const { value, done } = await checks.next();
        if (done) {
          found = value;
          break;
        }
        states.push(value.state);
        list.append(step(value));
      }
    } catch (error) {
      states.push('bad');
      list.append(step({ state: 'bad', title: t('opening-unreadable'), told: String(error.message) }));
    }
    const holds = found && !states.includes('bad');
    const text = t(holds ? 'opening-holds' : 'opening-fails');
    result.prepend(
      h(
        'p',
        { class: `verdict ${holds ? 'good' : 'bad'}`, role: 'status', 'data-opening': holds ? 'good' : 'bad' },
        text,
      ),
      holds ? about(sources, opening, found) : '',
    );
    announce(text);
  };
  input.addEventListener('change', () => input.files[0] && check(input.files[0]));
  const drop = h(
    'div',
    {
      class: 'drop',
      ondragover: (event) => event.preventDefault(),
      ondrop: (event) => {
        event.preventDefault();
        if (event.dataTransfer.files[0]) check(event.dataTransfer.files[0]);
      },
    },
    h('label', { for: 'opening' }, t('opening-choose')),
    input,
    h('p', { class: 'note' }, t('opening-stays')),
  );
  return h(
    'section',
    { class: 'card', 'aria-labelledby': 'check' },
    h('h2', { id: 'check' }, t('opening-title')),
    h('p', null, t('opening-lead')),
    drop,
    result,
  );
}

function about(sources, opening, { entry, values }) {
  return h(
    'div',
    { class: 'entry' },
    facts([
      ...values.filter(({ name }) => name !== 'hidden').map(({ name, told }) => [named('slot', name), told]),
      [t('time'), entry.time ? moment(entry.time, true) : null],
      [t('asks'), entry.consumer ? system(sources, entry.consumer) : null],
      [t('is-asked'), entry.provider ? system(sources, entry.provider) : null],
      [t('what-for'), entry.method ? method(entry) : null],
      [t('basis'), entry.basis],
      [t('outcome'), entry.outcome ? outcome(entry.outcome) : null],
      [
        t('exchange'),
        entry.exchange ? h('a', { href: href('exchange', {}, entry.exchange), class: 'code' }, entry.exchange) : null,
      ],
    ]),
    entry.kind ? null : h('p', null, t('opening-hidden')),
  );
}

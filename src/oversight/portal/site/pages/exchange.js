// One exchange: what each side's log says of it, whether they agree, and the proof that both stand in their logs.

import { fullName, shortName } from '../directory.js';
import { announce, csvButton, fault, h, nothing } from '../dom.js';
import { closes, isUuid, memberOf, opens, systemName, uuidTime } from '../entry.js';
import { href } from '../links.js';
import { basis, bodyLink, facts, method, outcome, step, system } from '../parts.js';
import { exchange } from '../search.js';
import { moment, named, number, t } from '../text.js';
import { hex, parseCheckpoint } from '../tlog.js';
import { checkCheckpoint, checkEntry } from '../verify.js';

export async function exchangePage({ sources, params, rest, heading }) {
  const id = rest.toLowerCase();
  if (!isUuid(id)) return fault(t('not-an-id'), rest);
  const hints = [...(params.at ?? '').matchAll(/(\d+)\.(\d+)/g)]
    .map(([, log, index]) => ({ log: sources.logs[Number(log)], index: Number(index) }))
    .filter(({ log }) => log);
  const [{ entries, failed, hiding }, words] = await Promise.all([exchange(sources, id, hints), sources.bases()]);
  const parts = [
    h('p', { class: 'code id' }, id),
    ...failed.map(({ log, error }) => fault(t('log-failed', { origin: log.origin }), String(error.message))),
  ];
  // An entry that the address names and that tells of something else has been changed, or the address is wrong: it is shown as it is.
  const strange = hints.filter(({ log, index }) => !entries.some((one) => one.log === log && one.index === index));
  if (entries.length === 0 && strange.length === 0) {
    return h(
      'div',
      null,
      parts,
      nothing(t('exchange-unknown')),
      h('p', null, t('exchange-unknown-why', { date: moment(uuidTime(id), true) })),
    );
  }
  const told = judge(sources, entries, hiding);
  const best = entries.find(({ entry }) => closes(entry)) ?? entries[0];
  if (best) {
    parts.push(h('p', { class: 'lead' }, sentence(sources, best.entry, words)));
    heading.textContent = t('exchange-heading', {
      method: best.entry.method || t('title-exchange'),
      day: moment(best.entry.time),
    });
  }
  parts.push(
    h(
      'section',
      { class: `verdict ${told.state}`, 'aria-labelledby': 'agree' },
      h('h2', { id: 'agree' }, told.title),
      h('p', null, told.text),
    ),
  );
  const members = best ? [...new Set([memberOf(best.entry.consumer), memberOf(best.entry.provider)])] : [];
  parts.push(
    h(
      'div',
      { class: 'two' },
      members.map((member, number) => side(sources, member, number, entries, words, members.length)),
    ),
  );
  parts.push(
    ...strange.map(({ log, index }) =>
      fault(t('exchange-strange', { index: number(index), origin: log.origin }), t('exchange-strange-told')),
    ),
  );
  const places = [...entries.map(({ log, index }) => ({ log, index })), ...strange];
  parts.push(verifyCard(sources, places));
  if (entries.length) {
    const rows = () =>
      entries.map(({ log, index, entry }) => [
        log.origin,
        index,
        entry.kind,
        new Date(entry.time).toISOString(),
        entry.consumer,
        entry.provider,
        entry.service,
        entry.method,
        entry.basis,
        entry.outcome,
        entry.status,
        entry.reason,
        hex(entry.commitment),
      ]);
    parts.push(
      h(
        'p',
        { class: 'buttons' },
        csvButton(
          `exchange-${id}`,
          [
            'log',
            'entry',
            'kind',
            'time',
            'consumer',
            'provider',
            'service',
            'method',
            'legal_basis',
            'outcome',
            'grpc_status',
            'reason',
            'commitment',
          ],
          rows,
        ),
      ),
    );
  }
  return h('div', null, parts);
}

function sentence(sources, entry, words) {
  const name = (system) => (system ? fullName(sources.directory, memberOf(system)) : t('nobody-named'));
  const law = words.get(entry.basis)?.law ?? entry.basis;
  const said = t('exchange-sentence', {
    date: moment(entry.time, true),
    consumer: name(entry.consumer),
    provider: name(entry.provider),
    method: entry.method || '–',
  });
  const why = entry.basis ? ` ${t('exchange-sentence-basis', { law })}` : ` ${t('exchange-sentence-no-basis')}`;
  return `${said}${why} ${t(`exchange-sentence-${entry.outcome || 'open'}`, { reason: named('reason', entry.reason || 'none') })}`;
}

/** Whether both sides tell the same, as far as this portal has both logs. The monitor's rules, for one exchange. */
export function judge(sources, entries, hiding = new Set()) {
  const say = (state, key, args) => ({ state, title: t(`agree-${key}`), text: t(`agree-${key}-told`, args) });
  const first = entries.find(({ entry }) => closes(entry))?.entry ?? entries[0]?.entry;
  if (!first) return say('bad', 'unreadable');
  const [consumer, provider] = [memberOf(first.consumer), memberOf(first.provider)];
  if (consumer === provider) return say('plain', 'same-member');
  const [asking, answering] = [consumer, provider].map((member) => {
    const log = sources.of(member);
    const own = entries.filter((one) => one.log === log).map(({ entry }) => entry);
    return { log, own, end: own.find(closes), open: own.find(opens) };
  });
  if (asking.end?.kind === 'REFUSED')
    return answering.own.length ? say('bad', 'refused-and-sent') : say('good', 'never-left');
  if (!asking.log || !answering.log)
    return say('plain', 'one-log', { member: shortName(sources.directory, asking.log ? provider : consumer) });
  if (asking.end?.kind === 'FAILED')
    return answering.own.length ? say('plain', 'failed') : say('plain', 'never-arrived');
  for (const [own, member] of [
    [asking, consumer],
    [answering, provider],
  ]) {
    const name = shortName(sources.directory, member);
    if (!own.end && hiding.has(own.log)) return say('plain', 'hidden', { member: name });
    if (own.own.length === 0) return say('bad', 'missing', { member: name });
    if (!own.end) return say('bad', 'open', { member: name });
  }
  const parts = ['consumer', 'provider', 'service', 'method', 'outcome', 'status'];
  const bases = asking.end.basis && answering.end.basis ? ['basis'] : [];
  // An end that one side could not see is told differently by right.
  if (answering.end.kind === 'FAILED') return say('plain', 'failed');
  const different = [...parts, ...bases].filter((part) => asking.end[part] !== answering.end[part]);
  return different.length
    ? say('bad', 'different', { parts: different.map((part) => t(`part-${part}`)).join(', ') })
    : say('good', 'same');
}

function side(sources, member, number, entries, words, members) {
  const log = sources.of(member);
  const own = entries.filter((one) => one.log === log && log);
  const title = members === 1 ? t('side-both') : t(number === 0 ? 'side-asking' : 'side-answering');
  return h(
    'section',
    { class: 'card side', 'aria-label': title },
    h('p', { class: 'kicker' }, title),
    h('h2', null, bodyLink(sources, member)),
    !log
      ? nothing(t('side-no-log'))
      : own.length === 0
        ? nothing(t('side-no-entry'))
        : own.map((one) => entryCard(sources, one, words)),
  );
}

function entryCard(sources, { log, index, entry, bytes, shown }, words) {
  const system_ = closes(entry) || opens(entry);
  return h(
    'article',
    { class: 'entry' },
    h('h3', null, named('kind', entry.kind), ' ', entry.outcome ? outcome(entry.outcome) : null),
    facts([
      [t('time'), moment(entry.time, true)],
      [t('asks'), system_ ? systemName(entry.consumer) : system(sources, entry.consumer)],
      [t('is-asked'), systemName(entry.provider) || null],
      [t('what-for'), method(entry)],
      [t('basis'), entry.basis ? basis(words, entry.basis, true) : null],
      [t('reason'), entry.reason ? named('reason', entry.reason) : null],
      [t('refused-by'), entry.side ? t(`side-${entry.side}`) : null],
      [t('class'), shown ? t('class-DELAYED') : named('class', entry.publication || 'none')],
      [t('status'), entry.outcome ? String(entry.status) : null],
      [t('in-log'), t('in-log-at', { index, origin: log.origin })],
    ]),
    h(
      'details',
      null,
      h('summary', null, t('committed')),
      h('p', null, t('committed-told')),
      facts([
        [t('commitment'), h('span', { class: 'code' }, hex(entry.commitment))],
        [t('schema'), entry.schema ? h('span', { class: 'code' }, entry.schema) : null],
        [
          t('other-checkpoint'),
          entry.peerCheckpoint ? h('span', { class: 'code' }, other(entry.peerCheckpoint)) : null,
        ],
        [t('entry-bytes'), t('entry-bytes-told', { n: bytes.length })],
      ]),
    ),
  );
}

/** Which checkpoint of the other side this side had seen. */
function other(note) {
  try {
    const { origin, size } = parseCheckpoint(note);
    return `${origin}, ${number(size)}`;
  } catch {
    return '–';
  }
}

function verifyCard(sources, places) {
  const list = h('div', { class: 'steps', 'aria-live': 'polite' });
  const button = h('button', { type: 'button', class: 'verify' }, t('verify'));
  button.addEventListener('click', async () => {
    button.disabled = true;
    list.replaceChildren();
    const all = [];
    for (const log of [...new Set(places.map(({ log }) => log))]) {
      const steps = h('ol', null);
      list.append(h('h3', null, t('verify-log', { origin: log.origin })), steps);
      const show = async (checks) => {
        for (;;) {
          const { value, done } = await checks.next();
          if (done) return value;
          all.push(value);
          steps.append(step(value));
        }
      };
      const checkpoint = await show(checkCheckpoint(log, sources));
      if (!checkpoint) continue;
      for (const { index } of places.filter((place) => place.log === log))
        await show(checkEntry(log, index, checkpoint));
    }
    const bad = all.filter(({ state }) => state === 'bad').length;
    const warned = all.filter(({ state }) => state === 'warn').length;
    const state = bad ? 'bad' : warned ? 'warn' : 'good';
    const text = t(bad ? 'verified-bad' : warned ? 'verified-warn' : 'verified-good', {
      n: bad || warned || all.length,
    });
    list.prepend(h('p', { class: `verdict ${state}`, role: 'status', 'data-verified': state }, text));
    announce(text);
    button.disabled = false;
    button.textContent = t('verify-again');
  });
  return h(
    'section',
    { class: 'card', 'aria-labelledby': 'verify' },
    h('h2', { id: 'verify' }, t('verify-title')),
    h('p', null, t('verify-lead')),
    h('p', { class: 'buttons' }, button),
    list,
    h(
      'details',
      null,
      h('summary', null, t('verify-trust')),
      h('p', null, t('verify-trust-told')),
      h('p', null, h('a', { href: href('open-data') }, t('nav-open-data'))),
    ),
  );
}

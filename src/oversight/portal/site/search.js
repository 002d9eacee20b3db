// Finding exchanges, newest first, without reading everything: a log's summary says in which months and days, and between which
// entries of a day, something can be that is wanted; only those bundles are read. A search reads so many bundles and no more; then it
// says how far back it came, and a link goes on from there.

import { closes, hides, memberOf, opens, role, uuidTime } from './entry.js';
import { readGroups } from './tally.js';
import { TILE } from './tlog.js';

/** Bundles that one search may read. */
const BUDGET = 60;
/** How far entries of one log may be out of order. */
const SLACK_MS = 120_000;

export const FIELDS = ['body', 'consumer', 'provider', 'service', 'method', 'outcome', 'basis', 'reason'];

const ANY = '…';

/** Whether a group or entry is one that is wanted. What a summary does not tell apart may be. */
export function wanted(found, filter) {
  const is = (value, wish) => !wish || value === ANY || value === wish;
  const of = (system, wish) => !wish || system === ANY || system === wish || memberOf(system) === wish;
  return (
    (of(found.consumer, filter.body) || of(found.provider, filter.body)) &&
    of(found.consumer, filter.consumer) &&
    of(found.provider, filter.provider) &&
    is(found.service, filter.service) &&
    is(found.method, filter.method) &&
    is(found.outcome, filter.outcome) &&
    is(found.basis, filter.basis) &&
    is(found.reason, filter.reason)
  );
}

/** Runs of entries, [first, last] and newest first, in which something wanted can be. */
async function* runs(log, filter, size, above, listed) {
  // What the asking side's log tells is looked for there.
  const told = ({ as, consumer }) => as !== 'look' && (as !== 'answered' || !listed.has(memberOf(consumer)));
  const fits = (group) => told(group) && wanted(group, filter);
  let summary = null;
  try {
    summary = await log.summary();
  } catch {
    /* without one every entry may be */
  }
  const known = summary ? Math.min(summary.entries, size) : 0;
  if (above > known) yield [known, above - 1];
  if (!summary) return;
  const groups = readGroups(summary.columns, summary.strings, summary.groups);
  if (!groups.some(fits)) return;
  for (const [month, first] of [...summary.months].reverse()) {
    if (first >= above || (filter.to && Date.parse(`${month}-01T00:00:00Z`) > filter.to)) continue;
    let days = [];
    try {
      ({ days } = await log.month(month));
    } catch {
      yield [first, above - 1];
      above = first;
      continue;
    }
    for (const day of [...days].reverse()) {
      if (day.first >= above) continue;
      if (filter.from && Date.parse(`${day.day}T00:00:00Z`) + 86_400_000 + SLACK_MS < filter.from) return;
      const found = readGroups(summary.columns, day.strings, day.groups).filter(fits);
      if (found.length === 0) continue;
      const first = Math.min(...found.map((group) => group.first));
      const last = Math.min(above - 1, Math.max(...found.map((group) => group.last)));
      if (last >= first) yield [first, last];
    }
  }
}

const timeIn = (entries) => entries.find(({ entry }) => entry.time > 0)?.entry.time ?? 0;

/** The first index behind all entries up to this time: by halving, over the days that the summary names, or over the whole log. */
export async function locate(log, time, size) {
  let [low, high] = [0, Math.floor((size - 1) / TILE)];
  try {
    const name = new Date(time).toISOString().slice(0, 10);
    const { days, entries } = await log.summary();
    const next = days.find(([day]) => day > name);
    const at = days.findLast(([day]) => day <= name);
    if (at) low = Math.max(0, Math.floor(at[1] / TILE) - 1);
    if (next) high = Math.min(high, Math.floor(next[1] / TILE));
    if (entries > size) high = Math.min(high, Math.floor((size - 1) / TILE));
  } catch {
    /* the whole log, then */
  }
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    const shown = timeIn(await log.entries(middle, size));
    // A bundle that shows no time is taken for one of before: the search begins later than it must, not earlier.
    if (shown > time) high = middle - 1;
    else low = middle;
  }
  return Math.min(size, (low + 1) * TILE);
}

/** One log's exchanges that are wanted, newest first, and each bundle that is read. */
async function* walk(log, filter, listed) {
  const { size } = await log.checkpoint();
  if (size === 0) return;
  const above = filter.to ? await locate(log, filter.to + SLACK_MS, size) : size;
  for await (const [first, last] of runs(log, filter, size, above, listed)) {
    for (let number = Math.floor(last / TILE); number >= Math.floor(first / TILE); number -= 1) {
      const entries = await log.entries(number, size);
      yield { read: true, time: timeIn(entries) };
      for (const found of entries.reverse()) {
        if (found.index < first || found.index > last) continue;
        const shown =
          found.entry.kind === 'OPENED' && found.entry.opened ? { ...found, entry: found.entry.opened.hidden } : found;
        const { entry } = shown;
        if (!closes(entry) || !wanted(entry, filter)) continue;
        // Told once: by the asking side's log where there is one.
        if (role(entry, log.member) === 'answered' && listed.has(memberOf(entry.consumer))) continue;
        if (filter.to && entry.time > filter.to) continue;
        if (filter.from && entry.time < filter.from - SLACK_MS) return;
        if (filter.from && entry.time < filter.from) continue;
        yield { found: shown, time: entry.time };
      }
    }
  }
}

/** Exchanges that are wanted, newest first: { found, more: time from which to go on, or 0 }. */
export async function search(sources, filter, most, onRead = () => {}) {
  const listed = new Set(sources.logs.map((log) => log.member));
  // All that is newer than `reached` has been given; of the bundle at hand, only once the next one is read.
  const walks = sources.logs.map((log) => ({
    log,
    steps: walk(log, filter, listed),
    head: null,
    reached: Infinity,
    next: Infinity,
    over: false,
  }));
  const failed = [];
  const most_read = Math.max(BUDGET, 4 * walks.length);
  let left = most_read;
  const advance = async (one) => {
    while (!one.head && !one.over && left > 0) {
      let step;
      try {
        step = await one.steps.next();
      } catch (error) {
        failed.push({ log: one.log, error });
        one.over = true;
        return;
      }
      if (step.done) one.over = true;
      else if (step.value.read) {
        left -= 1;
        onRead(most_read - left);
        one.reached = Math.min(one.reached, one.next);
        one.next = step.value.time || one.next;
      } else one.head = step.value;
    }
  };
  const found = [];
  for (;;) {
    await Promise.all(walks.map(advance));
    // Nothing may be shown that is older than what a log has not been asked for yet.
    const open = walks.filter((one) => !one.head && !one.over);
    const limit = Math.max(-Infinity, ...open.map((one) => one.reached));
    const newest = walks.filter((one) => one.head).sort((a, b) => b.head.time - a.head.time)[0];
    if (newest && newest.head.time >= limit) {
      if (found.length >= most) return { found, failed, more: newest.head.time, halted: false };
      found.push(newest.head.found);
      newest.reached = Math.min(newest.reached, newest.head.time);
      newest.head = null;
    } else if (open.length > 0) {
      return { found, failed, more: Number.isFinite(limit) ? limit : (filter.to ?? 0), halted: true };
    } else {
      return { found, failed, more: 0, halted: false };
    }
  }
}

/** Everything that the logs have of one exchange: opening and closing entries of both sides, and what cannot be read. */
export async function exchange(sources, id, hints, onRead = () => {}) {
  const found = new Map();
  const failed = [];
  // Logs that hide entries of that time: one of them may be what is missing.
  const hiding = new Set();
  const keep = (entries) => {
    for (const one of entries) {
      if (hides(one.entry)) hiding.add(one.log);
      const hidden = one.entry.opened?.hidden;
      const entry = hidden?.exchange === id ? hidden : one.entry;
      if (entry.exchange === id)
        found.set(`${one.log.number}.${one.index}`, { ...one, entry, shown: entry !== one.entry });
    }
  };
  const members = () =>
    new Set([...found.values()].flatMap(({ entry }) => [memberOf(entry.consumer), memberOf(entry.provider)]));
  const whole = (log) => {
    const own = [...found.values()].filter((one) => one.log === log);
    return (
      own.some(({ entry }) => entry.kind === 'REFUSED') ||
      (own.some(({ entry }) => opens(entry)) && own.some(({ entry }) => closes(entry)))
    );
  };
  const look = async (log, numbers) => {
    const { size } = await log.checkpoint();
    for (const number of numbers(size)) {
      if (number < 0 || number * TILE >= size || whole(log)) continue;
      const entries = await log.entries(number, size);
      onRead();
      keep(entries);
    }
  };
  const guarded = async (log, work) => {
    try {
      await work();
    } catch (error) {
      failed.push({ log, error });
    }
  };
  for (const { log, index } of hints) await guarded(log, () => look(log, () => [Math.floor(index / TILE)]));
  const ended = Math.max(0, ...[...found.values()].map(({ entry }) => entry.time));
  const concerned = sources.logs.filter((log) => found.size === 0 || members().has(log.member));
  // Around the time in the id, and where it is known, around its end.
  for (const log of concerned) {
    await guarded(log, async () => {
      const { size } = await log.checkpoint();
      if (size === 0) return;
      for (const time of [uuidTime(id), ended].filter((time) => time > 0)) {
        if (whole(log)) break;
        const at = Math.floor(((await locate(log, time, size)) - 1) / TILE);
        await look(log, () => [at, at - 1, at + 1, at + 2, at + 3]);
      }
    });
  }
  const all = [...found.values()].sort((a, b) => a.log.number - b.log.number || a.index - b.index);
  return { entries: all, failed, hiding };
}

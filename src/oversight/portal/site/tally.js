// The logs' summaries put together. Both sides of an exchange count it; here each counts once: as its consumer's log tells it, or,
// where the portal does not have that log, as its provider's does.

import { memberOf } from './entry.js';

const ENDS = ['ok', 'error', 'refused', 'failed'];
export const NOTHING = { ok: 0, error: 0, refused: 0, failed: 0 };
export const total = (ends) => ends.ok + ends.error + ends.refused + ends.failed;

export function add(to, from) {
  for (const end of ENDS) to[end] += from[end];
  return to;
}

const isSummary = (summary) =>
  summary?.format === 'kopuro-summary/v1' &&
  ['columns', 'strings', 'groups', 'days', 'months'].every((part) => Array.isArray(summary[part]));

export class Tally {
  /** All summaries that can be read. */
  static async of(sources) {
    const read = await Promise.allSettled(sources.logs.map((log) => log.summary()));
    const found = read
      .map(({ value }, number) => ({ log: sources.logs[number], summary: value }))
      .filter(({ summary }) => isSummary(summary));
    return new Tally(found, read.length - found.length);
  }

  constructor(found, missing) {
    this.found = found;
    this.missing = missing;
    this.listed = new Set(found.map(({ log }) => log.member));
    this.latest = Math.max(0, ...found.map(({ summary }) => summary.time_unix_ms));
  }

  get entries() {
    return this.found.reduce((sum, { summary }) => sum + summary.entries - summary.from, 0);
  }

  /** Whether an answered exchange is told by the asking side's log here. */
  #told = (consumer) => this.listed.has(consumer);

  /** Days (or months) with what passed between whom: { name, entries, sealed, delayed, pairs: Map "consumer>provider" → ends }. */
  spans(kind, from = '') {
    const spans = new Map();
    for (const { log, summary } of this.found) {
      for (const [name, , entries, delayed, sealed, pairs] of summary[kind]) {
        if (name < from) continue;
        if (!spans.has(name)) spans.set(name, { name, entries: 0, sealed: 0, delayed: 0, pairs: new Map() });
        const span = spans.get(name);
        span.entries += entries;
        span.sealed += sealed;
        span.delayed += delayed;
        for (const [as, other, counts] of pairs) {
          if (as === 'answered' && this.#told(other)) continue;
          const pair = as === 'asked' ? `${log.member}>${other}` : `${other}>${log.member}`;
          const ends = Object.fromEntries(ENDS.map((end, index) => [end, counts[index]]));
          span.pairs.set(pair, add(span.pairs.get(pair) ?? { ...NOTHING }, ends));
        }
      }
    }
    const sorted = [...spans.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    return sorted;
  }

  /** The groups of all time, each once: { as, consumer, provider, service, method, basis, publication, outcome, reason, count, first, last }. */
  groups() {
    return this.found.flatMap(({ log, summary }) =>
      readGroups(summary.columns, summary.strings, summary.groups)
        .filter(({ as, consumer }) => as !== 'answered' || !this.#told(memberOf(consumer)))
        .map((group) => ({ ...group, log })),
    );
  }
}

/** Rows of numbers as groups with names. */
export function readGroups(columns, strings, rows) {
  return rows.map((row) => {
    const names = Object.fromEntries(columns.map((column, index) => [column, strings[row[index]] ?? '']));
    const [count, first, last] = row.slice(columns.length);
    return { ...names, basis: names.legal_basis, count, first, last };
  });
}

/** All days between the first and the last, those without anything too. */
export function filled(spans) {
  if (spans.length === 0 || spans[0].name.length === 7) return spans;
  const [byName, all] = [new Map(spans.map((span) => [span.name, span])), []];
  const at = (name) => Date.parse(`${name}T00:00:00Z`);
  for (let time = at(spans[0].name); time <= at(spans.at(-1).name) && all.length < 400; time += 86_400_000) {
    const name = new Date(time).toISOString().slice(0, 10);
    all.push(byName.get(name) ?? { name, entries: 0, sealed: 0, delayed: 0, pairs: new Map() });
  }
  return all;
}

/** What passed in a span, of the pairs that count. */
export function passed(span, counts = () => true) {
  const sum = { ...NOTHING };
  for (const [pair, ends] of span.pairs) if (counts(...pair.split('>'))) add(sum, ends);
  return sum;
}

/** Sums a thing over groups, the largest first: [{ key, count }]. */
export function sumBy(groups, keyOf) {
  const sums = new Map();
  for (const group of groups) sums.set(keyOf(group), (sums.get(keyOf(group)) ?? 0) + group.count);
  return [...sums].map(([key, count]) => ({ key, count })).sort((a, b) => b.count - a.count);
}

const WEEKS = 8;

/**
 * Days far from what the same weekday was in the eight weeks before, of which at least four had something: Tukey's outer fences
 * (three times the width of the middle half), and by at least half and by 20.
 */
export function unusual(days, countOf) {
  const counts = days.map(countOf);
  const found = [];
  const quartile = (sorted, share) => {
    const at = (sorted.length - 1) * share;
    const [low, high] = [Math.floor(at), Math.ceil(at)];
    return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
  };
  for (let at = 7 * 4; at < days.length; at += 1) {
    const before = Array.from({ length: WEEKS }, (_, week) => counts[at - 7 * (week + 1)]).filter((count) => count > 0);
    if (before.length < 4) continue;
    const sorted = before.sort((a, b) => a - b);
    const [low, high] = [quartile(sorted, 0.25), quartile(sorted, 0.75)];
    const reach = 3 * Math.max(high - low, 1);
    const above = counts[at] > Math.max(high + reach, high * 1.5, high + 20);
    const below = counts[at] < Math.min(low - reach, low / 2, low - 20);
    // A day that is not over has less by right.
    if (above || (below && at < days.length - 1)) {
      found.push({ name: days[at].name, count: counts[at], low: Math.round(low), high: Math.round(high), above });
    }
  }
  return found;
}

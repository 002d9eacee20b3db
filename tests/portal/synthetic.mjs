// Four logs with ten million entries in three months: summaries as a node would write them, and bundles made up when they are asked
// for. Nothing is random: the same every time.

import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const DAY = 86_400_000;
const DAYS = 92;
export const ENTRIES = 10_000_000;
const COLUMNS = ['as', 'consumer', 'provider', 'service', 'method', 'legal_basis', 'publication', 'outcome', 'reason'];

const MEMBERS = ['KG/GOV/70000001', 'KG/GOV/70000002', 'KG/GOV/70000003', 'KG/GOV/70000004'];
const FLOWS = [
  ['tax-service', 1, 'civil-registry', 0, 'kg.civil.v1.CivilRegistry', 'GetPerson', 'NK-54-2', 30],
  ['tax-service', 1, 'civil-registry', 0, 'kg.civil.v1.CivilRegistry', 'GetResidence', 'NK-54-2', 8],
  ['tax-service', 1, 'social-fund', 2, 'kg.social.v1.SocialFund', 'GetContributions', 'NK-188-1', 14],
  ['tax-service', 1, 'cadastre', 3, 'kg.cadastre.v1.Cadastre', 'ListProperties', 'NK-323-5', 9],
  ['social-fund', 2, 'civil-registry', 0, 'kg.civil.v1.CivilRegistry', 'GetPerson', 'ZSS-8-1', 19],
  ['social-fund', 2, 'tax-service', 1, 'kg.tax.v1.TaxService', 'GetTaxpayerStatus', 'ZSS-14-3', 11],
  ['civil-registry', 0, 'cadastre', 3, 'kg.cadastre.v1.Cadastre', 'GetProperty', 'ZMU-21', 6],
  ['service-centre', 0, 'social-fund', 2, 'kg.social.v1.SocialFund', 'GetPension', '', 1],
];

/** A number between 0 and 1 that depends on what it is of. */
const noise = (...of) => createHash('sha256').update(of.join(' ')).digest().readUInt32BE() / 2 ** 32;

const system = (name, member) => `${MEMBERS[member]}/${name}`;

class Signer {
  constructor(name, type) {
    const { publicKey, privateKey } = generateKeyPairSync('ed25519');
    this.key = Buffer.concat([Buffer.from([type]), publicKey.export({ type: 'spki', format: 'der' }).subarray(-32)]);
    this.id = createHash('sha256').update(`${name}\n`).update(this.key).digest().subarray(0, 4);
    Object.assign(this, { name, type, privateKey });
    this.vkey = `${name}+${this.id.toString('hex')}+${this.key.toString('base64')}`;
  }

  line(text, seconds = 0) {
    const time = Buffer.alloc(8);
    time.writeBigUInt64BE(BigInt(seconds));
    const message = this.type === 4 ? `cosignature/v1\ntime ${seconds}\n${text}` : text;
    const signature = sign(null, Buffer.from(message), this.privateKey);
    return `— ${this.name} ${Buffer.concat([this.id, ...(this.type === 4 ? [time] : []), signature]).toString('base64')}\n`;
  }
}

/** Exchanges of a flow on a day. */
function count(flow, day, scale, now) {
  const weekday = new Date(now - (DAYS - 1 - day) * DAY).getUTCDay();
  const rest = weekday === 0 ? 0.12 : weekday === 6 ? 0.3 : 1;
  const burst = flow === 0 && day === DAYS - 9 ? 3.4 : flow === 4 && day === DAYS - 30 ? 2.8 : 1;
  return Math.round(FLOWS[flow][7] * scale * rest * burst * (0.9 + 0.2 * noise(flow, day)));
}

class Groups {
  constructor() {
    this.strings = [];
    this.rows = new Map();
  }

  add(names, count, first, last) {
    const numbers = names.map((name) =>
      this.strings.includes(name) ? this.strings.indexOf(name) : this.strings.push(name) - 1,
    );
    const row = this.rows.get(numbers.join()) ?? [...numbers, 0, first, last];
    row[9] += count;
    row[11] = last;
    this.rows.set(numbers.join(), row);
  }
}

/** Writes the folder; gives back a function that makes up bundles for the server. */
export async function synthetic(folder, site, demo) {
  const now = Date.UTC(2026, 10, 25, 9, 40);
  const perDay = FLOWS.reduce((sum, flow) => sum + flow[7], 0);
  // Each exchange has two entries in each of two logs.
  const scale = ENTRIES / 4 / (DAYS * perDay * 0.79);
  const witness = new Signer('witness.public-council.kg.example', 4);
  await cp(site, join(folder, 'portal'), { recursive: true });
  let directory = await readFile(join(demo, '70000001/directory'), 'utf8');
  const logs = await Promise.all(
    MEMBERS.map(async (member, number) => {
      const signer = new Signer(`log.example/${member.toLowerCase()}`, 1);
      directory = directory.replace(new RegExp(`(node ${member} main \\S+) .*`), `$1 ${signer.vkey}`);
      const made = summarise(member, number, scale, now);
      return { member, signer, folder: join(folder, member.split('/')[2]), ...made };
    }),
  );
  const council = new Signer('council.example', 1);
  directory = directory
    .split('\n\n')[0]
    .replace(/^threshold .*$/m, 'threshold 1')
    .replace(/(^council .*\n)+/m, `council ${council.vkey}\n`);
  directory = `${directory}\n\n${council.line(`${directory}\n`)}`;
  for (const { member, signer, folder, summary, months } of logs) {
    await mkdir(join(folder, 'open-data'), { recursive: true });
    const text = `${signer.name}\n${summary.entries}\n${createHash('sha256').update(member).digest('base64')}\n`;
    await writeFile(
      join(folder, 'checkpoint'),
      `${text}\n${signer.line(text)}${witness.line(text, Math.floor(Date.now() / 1000))}`,
    );
    await writeFile(join(folder, 'directory'), directory);
    await cp(join(demo, member.split('/')[2], 'grants.json'), join(folder, 'grants.json'));
    await cp(join(demo, '70000001/open-data/dictionary.csv'), join(folder, 'open-data/dictionary.csv'));
    await writeFile(join(folder, 'open-data/summary.json'), JSON.stringify({ ...summary, origin: signer.name }));
    await writeFile(join(folder, 'open-data/days.csv'), days(summary));
    for (const [month, text] of months)
      await writeFile(join(folder, `open-data/summary-${month}.json`), JSON.stringify(text));
  }
  const config = {
    format: 'kopuro-portal/v1',
    logs: logs.map(({ member, signer }) => ({ url: `../${member.split('/')[2]}/`, vkey: signer.vkey })),
    policy: `witness council ${witness.vkey}\nquorum council\n`,
    monitor: 'report.json',
  };
  await writeFile(join(folder, 'portal/portal.json'), JSON.stringify(config));
  const report = {
    at_unix_ms: Date.now() - 40_000,
    ok: true,
    exchanges: { agreed: ENTRIES / 4 - 1234, wrong: 0, waiting: 3, never_arrived: 12, unchecked: 0, forgotten: 0 },
    wrong: {},
    findings: [],
    evidence: [],
    logs: logs.map(({ member, signer }) => ({ origin: signer.name, member, condition: 'GOOD' })),
  };
  await writeFile(join(folder, 'portal/report.json'), JSON.stringify(report));
  return {
    entries: logs.reduce((sum, { summary }) => sum + summary.entries, 0),
    virtual: (path) => virtual(path, logs),
  };
}

const dayName = (day, now) => new Date(now - (DAYS - 1 - day) * DAY).toISOString().slice(0, 10);

function summarise(member, number, scale, now) {
  const [all, daysOf, monthsOf, files, ranges] = [new Groups(), [], new Map(), new Map(), []];
  let index = 0;
  for (let day = 0; day < DAYS; day += 1) {
    const name = dayName(day, now);
    const [first, groups, pairs] = [index, new Groups(), []];
    const parts = FLOWS.flatMap((flow, at) => {
      if (flow[1] !== number && flow[3] !== number) return [];
      const as = flow[1] === number ? 'asked' : 'answered';
      const total = count(at, day, scale, now);
      const refused = flow[6] ? Math.round(total * 0.01) : total;
      const names = (outcome, reason) => [
        as,
        system(flow[0], flow[1]),
        system(flow[2], flow[3]),
        flow[4],
        flow[5],
        outcome === 'REFUSED' ? '' : flow[6],
        'PUBLIC',
        outcome,
        reason,
      ];
      return [{ as, with: MEMBERS[as === 'asked' ? flow[3] : flow[1]], names, total, refused, flow: at }];
    });
    const entries = parts.reduce((sum, { total }) => sum + 2 * total, 0);
    const sealed = Math.round(entries * 0.04);
    for (const { as, with: other, names, total, refused } of parts) {
      const end = first + entries - 1;
      for (const [outcome, reason, times] of [
        ['OK', '', total - refused],
        ['REFUSED', names('OK', '')[5] ? 'RATE_LIMITED' : 'GRANT_MISSING', refused],
      ]) {
        if (times === 0) continue;
        groups.add(names(outcome, reason), times, first, end);
        const today = Math.floor((now - (DAYS - 1 - day) * DAY) / DAY);
        all.add(names(outcome, reason), times, today, today);
      }
      pairs.push([as, other, [total - refused, 0, refused, 0]]);
    }
    index += entries + sealed;
    ranges.push({
      first,
      end: index,
      start: Date.parse(`${name}T00:00:00Z`),
      length: day === DAYS - 1 ? 9.6 * 3600_000 : DAY,
      parts,
    });
    daysOf.push([name, first, index - first, 0, sealed, pairs]);
    const month = name.slice(0, 7);
    if (!files.has(month))
      files.set(month, { format: 'kopuro-summary-month/v1', member, month, columns: COLUMNS, days: [] });
    files.get(month).days.push({
      day: name,
      first,
      entries: index - first,
      delayed: 0,
      sealed,
      strings: groups.strings,
      groups: [...groups.rows.values()],
    });
    files.get(month).entries = index;
    const span = monthsOf.get(month) ?? [month, first, 0, 0, 0, []];
    span[2] += index - first;
    span[4] += sealed;
    for (const [as, other, ends] of pairs) {
      const known = span[5].find((pair) => pair[0] === as && pair[1] === other);
      if (known) known[2] = known[2].map((value, at) => value + ends[at]);
      else span[5].push([as, other, [...ends]]);
    }
    monthsOf.set(month, span);
  }
  const summary = {
    format: 'kopuro-summary/v1',
    member,
    from: 0,
    entries: index,
    time_unix_ms: now,
    columns: COLUMNS,
    strings: all.strings,
    groups: [...all.rows.values()],
    days: daysOf,
    months: [...monthsOf.values()],
  };
  return { summary, months: files, ranges };
}

function days(summary) {
  const hash = 'ab'.repeat(32);
  const lines = summary.days
    .slice(0, -1)
    .map(([name, first, entries, , sealed]) => [name, first, entries, entries - sealed, 0, sealed, hash, hash].join());
  return ['day,first_entry,entries,rows,delayed,sealed,csv_sha256,parquet_sha256', ...lines, ''].join('\n');
}

/** A protobuf field: a number, or bytes. */
function field(number, value) {
  const varint = (value) => {
    const bytes = [];
    for (let rest = BigInt(value); ; rest >>= 7n) {
      if (rest < 128n) return Buffer.from([...bytes, Number(rest)]);
      bytes.push(Number(rest & 127n) | 128);
    }
  };
  if (typeof value === 'number') return Buffer.concat([varint(number << 3), varint(value)]);
  return Buffer.concat([varint((number << 3) | 2), varint(value.length), Buffer.from(value)]);
}

function made(log, index) {
  const range = log.ranges.findLast(({ first }) => first <= index);
  const time = Math.floor(range.start + ((index - range.first) / (range.end - range.first)) * range.length);
  if (index % 26 === 25) return Buffer.concat([field(9, 3), field(15, Buffer.alloc(32, 1))]);
  const { as, names, refused, total } = range.parts[Math.floor(index / 2) % range.parts.length];
  const isRefused = refused > 0 && (refused === total || Math.floor(index / 2) % 97 === 0);
  const [, consumer, provider, service, method, basis, , outcome, reason] = names(
    isRefused ? 'REFUSED' : 'OK',
    isRefused ? (refused === total ? 'GRANT_MISSING' : 'RATE_LIMITED') : '',
  );
  const id = Buffer.alloc(16);
  id.writeUIntBE(time, 0, 6);
  id[6] = 0x70;
  id[8] = 0x80;
  id.writeUInt32BE(index - (index % 2), 12);
  const closing = index % 2 === 1;
  return Buffer.concat([
    field(1, closing ? (as === 'asked' ? 4 : 3) : as === 'asked' ? 1 : 2),
    field(2, id),
    field(3, time),
    field(4, consumer),
    field(5, provider),
    field(6, service),
    field(7, method),
    field(8, basis),
    field(9, 1),
    ...(closing ? [field(11, outcome === 'OK' ? 1 : 3), field(12, outcome === 'OK' ? 0 : 7), field(13, reason)] : []),
    field(15, Buffer.alloc(32, 2)),
    field(20, Buffer.alloc(32, 3)),
  ]);
}

function virtual(path, logs) {
  const found = path.match(/^\/(\d+)\/tile\/entries\/((?:x\d{3}\/)*\d{3})(?:\.p\/(\d+))?$/);
  const log = found && logs.find(({ member }) => member.endsWith(found[1]));
  if (!log) return null;
  const number = Number(found[2].replaceAll(/[x/]/g, ''));
  const entries = Array.from({ length: Number(found[3] ?? 256) }, (_, at) => made(log, number * 256 + at));
  return Buffer.concat(entries.flatMap((entry) => [Buffer.from([entry.length >> 8, entry.length & 255]), entry]));
}

// Where everything comes from: the published files of each log that portal.json names. Small files are read once, tiles and
// bundles one by one; what is full never changes and is kept, up to a limit.

import { decode } from './entry.js';
import { isSignedBy, readDirectory } from './directory.js';
import { Policy } from './policy.js';
import { TILE, bundle, parseCheckpoint, parseVkey, tilePath, tileWidth } from './tlog.js';

const MOST_KEPT = 200;

/** No file that a page reads whole is larger: the largest bundle has 256 entries of 65,535 bytes. */
const LARGEST = 256 * (2 + 65_535);

/** Bytes read so far, and by how many requests. */
export const traffic = { bytes: 0, requests: 0 };

export class Missing extends Error {}

async function read(url, cache = 'default') {
  let answer;
  try {
    answer = await fetch(url, { cache, credentials: 'omit', referrerPolicy: 'no-referrer' });
  } catch {
    throw new Missing(`${url}: no answer`);
  }
  if (!answer.ok) throw new Missing(`${url}: ${answer.status}`);
  const parts = [];
  let length = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
    if (length > LARGEST) {
      await reader.cancel();
      throw new Missing(`${url}: larger than it can be`);
    }
  }
  const found = new Uint8Array(length);
  parts.reduce((at, part) => (found.set(part, at), at + part.length), 0);
  traffic.bytes += length;
  traffic.requests += 1;
  return found;
}

const readText = async (url, cache) => new TextDecoder().decode(await read(url, cache));
const readJson = async (url, cache) => JSON.parse(await readText(url, cache));

/** One published log. */
export class Log {
  #once = new Map();
  #kept = new Map();

  constructor(source, number, base) {
    this.number = number;
    this.vkey = source.vkey;
    this.url = new URL(source.url.endsWith('/') ? source.url : `${source.url}/`, base).href;
    this.origin = source.vkey.split('+')[0];
  }

  /** Whose log it is: as the directory says by its key, else as its summary says. */
  member = '';

  #one(name, make) {
    if (!this.#once.has(name)) {
      const made = make();
      this.#once.set(name, made);
      made.catch(() => this.#once.delete(name));
    }
    return this.#once.get(name);
  }

  key = () => this.#one('key', () => parseVkey(this.vkey));
  checkpoint = () =>
    this.#one('checkpoint', async () => parseCheckpoint(await readText(`${this.url}checkpoint`, 'no-cache')));
  directory = () =>
    this.#one('directory', async () => readDirectory(await readText(`${this.url}directory`, 'no-cache')));
  grants = () => this.#one('grants', async () => (await readJson(`${this.url}grants.json`, 'no-cache')).grants ?? []);
  days = () => this.#one('days', () => readText(`${this.url}open-data/days.csv`, 'no-cache'));
  dictionary = () => this.#one('dictionary', () => readText(`${this.url}open-data/dictionary.csv`));
  summary = () => this.#one('summary', () => readJson(`${this.url}open-data/summary.json`, 'no-cache'));
  month = (name) => this.#one(`month ${name}`, () => readJson(`${this.url}open-data/summary-${name}.json`, 'no-cache'));

  /** A file as it is published: its bytes. */
  file = (path) => read(this.url + path, 'no-cache');

  /** A tile's bytes, of a tree of this size. A partial one may be gone once the full one is there. */
  async tile(level, number, size) {
    const width = tileWidth(size, level === 'entries' ? 0 : level, number);
    if (width <= 0) throw new Missing(`${this.url}: no tile ${level}/${number} in a tree of ${size}`);
    const path = tilePath(level, number, width);
    const kept = this.#kept.get(path);
    if (kept) return kept;
    const reading = read(this.url + path).catch((error) =>
      width < TILE ? read(this.url + tilePath(level, number, TILE)) : Promise.reject(error),
    );
    this.#kept.set(path, reading);
    reading.catch(() => this.#kept.delete(path));
    if (this.#kept.size > MOST_KEPT) this.#kept.delete(this.#kept.keys().next().value);
    return reading;
  }

  /** The bytes of a bundle's entries. */
  async raw(number, size) {
    const width = tileWidth(size, 0, number);
    return [...bundle(await this.tile('entries', number, size))].slice(0, width);
  }

  /** A bundle's entries, decoded: { index, bytes, entry }. One that cannot be read is told as such. */
  async entries(number, size) {
    return (await this.raw(number, size)).map((bytes, at) => {
      const index = number * TILE + at;
      try {
        return { log: this, index, bytes, entry: decode(bytes) };
      } catch {
        return { log: this, index, bytes, entry: decode(new Uint8Array()) };
      }
    });
  }
}

/** Everything that this portal shows. */
export class Sources {
  constructor(config) {
    this.logs = config.logs.map((log, number) => new Log(log, number, document.baseURI));
    this.policy = config.policy ? new Policy(config.policy) : null;
    this.monitor = config.monitor ? new URL(config.monitor, document.baseURI).href : null;
    this.directory = readDirectory('');
  }

  static async open() {
    const sources = new Sources(await readJson('portal.json', 'no-cache'));
    await sources.#know();
    return sources;
  }

  /**
   * The newest directory, and by it whose each log is. Each log publishes one. As nodes do, a later one is taken only if the council of
   * the one in force has signed it, the first log's being in force at first: no log can rename the others.
   */
  async #know() {
    const found = await Promise.allSettled(this.logs.map((log) => log.directory()));
    for (const { value } of found.filter(({ value }) => value)) {
      const isFirst = this.directory.version === 0;
      if (value.version > this.directory.version && (await isSignedBy(value, isFirst ? value : this.directory)))
        this.directory = value;
    }
    for (const log of this.logs) {
      const node = this.directory.nodes.find((node) => node.vkey === log.vkey);
      log.member = node?.member ?? (await log.summary().catch(() => null))?.member ?? log.origin;
    }
  }

  /** A member's log, where the portal has it. */
  of = (member) => this.logs.find((log) => log.member === member) ?? null;

  report = () => (this.monitor ? readJson(this.monitor, 'no-cache') : Promise.resolve(null));

  /** All grants, each with the log beside which it is published. */
  async grants() {
    const found = await Promise.allSettled(this.logs.map((log) => log.grants()));
    return found.flatMap(({ value }, number) => (value ?? []).map((grant) => ({ ...grant, log: this.logs[number] })));
  }

  /** The words of a legal basis: of the register in the directory, or of a grant. */
  async bases() {
    const words = new Map(this.directory.purposes.map((purpose) => [purpose.code, purpose]));
    for (const { legal_basis: basis } of await this.grants()) {
      if (basis?.code && !words.has(basis.code)) words.set(basis.code, { code: basis.code, law: basis.text });
    }
    return words;
  }
}

// Checks an opening file (docs/protocol.md, "Opening files"): that a log has an entry, and that this entry is about what the file
// says. Nothing leaves the browser; what is on the web is asked for only by index.

import { decode, fields, told } from './entry.js';
import { base64, hex, leafHash, parseCheckpoint, rootOf, same, sha256, signed, utf8 } from './tlog.js';
import { moment, named, number, t } from './text.js';

const NAMES = ['request-digest', 'response-digest', 'subject', 'user', 'case', 'address', 'sizes', 'query', 'hidden'];
const MOST = 1 << 20;

const bad = (title, told, detail) => ({ state: 'bad', title, told, detail });
const good = (title, told, detail) => ({ state: 'good', title, told, detail });
const warn = (title, told, detail) => ({ state: 'warn', title, told, detail });

/** Reads the file: throws where it is none. */
export function readOpening(content) {
  if (content.length > MOST) throw new Error(t('opening-too-large'));
  const file = JSON.parse(content);
  if (file.format !== 'kopuro-opening/v1') throw new Error(t('opening-format'));
  if (
    !Number.isSafeInteger(file.index) ||
    file.index < 0 ||
    !Array.isArray(file.openings) ||
    !Array.isArray(file.proof)
  )
    throw new Error(t('opening-format'));
  return { ...file, bytes: base64(file.entry), note: parseCheckpoint(file.checkpoint), path: file.proof.map(base64) };
}

/** The steps of the check; `logs` are those whose keys are known. Gives back { entry, values } where all holds. */
export async function* checkOpening(file, logs) {
  const { note, bytes, index, path } = file;
  const log = logs.find(({ origin }) => origin === note.origin);
  if (!log) {
    yield bad(t('verify-key'), t('opening-log-unknown', { origin: note.origin }));
    return null;
  }
  const isSigned = await signed(note, await log.key());
  if (!isSigned) {
    yield bad(t('verify-signature'), t('verify-signature-bad'), note.text);
    return null;
  }
  yield good(t('verify-signature'), t('opening-signed', { origin: note.origin, size: note.size }), hex(note.root));
  const leaf = await leafHash(bytes);
  const led = await rootOf(leaf, index, note.size, path).catch(() => new Uint8Array());
  if (!same(led, note.root)) {
    yield bad(t('verify-root'), t('opening-not-in-log'), `${hex(led)} ≠ ${hex(note.root)}`);
    return null;
  }
  yield good(t('verify-root'), t('opening-in-log', { index: number(index) }), hex(leaf));
  const entry = decode(bytes);
  const values = [];
  for (const opening of file.openings) {
    const step = await checkField(opening, entry, values);
    yield step;
    if (step.state === 'bad') return null;
  }
  yield await stillPublished(log, index, leaf, note);
  return { entry, values };
}

async function checkField({ field, slot, value, salt, slots, path }, entry, values) {
  const name = NAMES[slot] ?? 'further';
  const title = t('opening-field', { field: named('slot', name) });
  // Beyond the named slots each is one more person, or a field with its path.
  const known = NAMES[slot] ?? `further-${slot}`;
  if (!Number.isInteger(slot) || slot < 0 || slot > 136 || field !== known) return bad(title, t('opening-format'));
  const [bytes, salted] = [base64(value), base64(salt)];
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, bytes.length);
  const data = await sha256(utf8('kopuro/field/v1'), [0, slot], salted, length, bytes);
  const led = await rootOf(await leafHash(data), slot, slots, path.map(base64)).catch(() => new Uint8Array());
  if (salted.length !== 32 || !same(led, entry.commitment))
    return bad(title, t('opening-not-committed'), `${hex(led)} ≠ ${hex(entry.commitment)}`);
  const said = valueOf(slot, bytes);
  if (slot === 8) {
    const hidden = decode(bytes);
    if (hidden.publication || hidden.delayDays || hidden.commitment.length)
      return bad(title, t('opening-not-committed'));
    Object.assign(entry, {
      ...hidden,
      publication: entry.publication,
      delayDays: entry.delayDays,
      commitment: entry.commitment,
    });
  }
  values.push({ name, told: said });
  return good(title, t('opening-committed'), said);
}

/** A slot's value as a person reads it. */
function valueOf(slot, bytes) {
  if ([2, 3, 4, 5].includes(slot)) return readable(bytes);
  if (slot === 6 && bytes.length === 32) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const [sent, sentBytes, got, gotBytes] = [0, 8, 16, 24].map((at) => Number(view.getBigUint64(at)));
    return t('sizes-told', { sent, sentBytes, got, gotBytes });
  }
  if (slot === 8) {
    const { time, consumer, provider, service, method } = decode(bytes);
    return `${moment(time, true)}: ${consumer} → ${provider}, ${service}/${method}`;
  }
  if (slot > 8) return further(bytes);
  return hex(bytes);
}

/** Text where it is some, else bytes. */
function readable(bytes) {
  const read = told(bytes);
  return read.includes('\ufffd') ? hex(bytes) : read;
}

/** A FurtherField: one more person, a field that its type's author wants committed, or how many more there were. */
function further(bytes) {
  for (const [number, value] of fields(bytes)) {
    if (number === 1) return readable(value);
    if (number === 2) {
      const found = [...fields(value)];
      const path = found.find(([number]) => number === 1)?.[1];
      const values = found.filter(([number]) => number === 3).map(([, value]) => readable(value));
      return `${path ? told(path) : ''}: ${values.join(', ')}`;
    }
    if (number === 3) return `+${value}`;
  }
  return hex(bytes);
}

/** Whether the log on the web has this very entry there: asked only where there is a web. */
async function stillPublished(log, index, leaf, note) {
  const title = t('opening-published');
  try {
    const checkpoint = await log.checkpoint();
    if (!(await signed(checkpoint, await log.key()))) return bad(title, t('verify-signature-bad'));
    if (checkpoint.size < note.size) return bad(title, t('opening-log-shorter'));
    const tile = await log.tile(0, Math.floor(index / 256), checkpoint.size);
    const told = tile.subarray((index % 256) * 32, (index % 256) * 32 + 32);
    return same(told, leaf)
      ? good(title, t('opening-published-good'))
      : bad(title, t('opening-published-bad'), `${hex(told)} ≠ ${hex(leaf)}`);
  } catch {
    return warn(title, t('opening-offline'));
  }
}

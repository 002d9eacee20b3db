// A published log's own arithmetic: C2SP signed notes, checkpoints and tiles, RFC 6962 hashes. No reading of files here: tiles
// come from whoever calls. Numbers of entries are exact up to 2^53.

const decoder = new TextDecoder();
const encoder = new TextEncoder();

export const TILE = 256;

export async function sha256(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return new Uint8Array(await crypto.subtle.digest('SHA-256', all));
}

export const leafHash = (entry) => sha256([0], entry);
export const nodeHash = (left, right) => sha256([1], left, right);

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
export const utf8 = (text) => encoder.encode(text);
export const text = (bytes) => decoder.decode(bytes);
export const base64 = (coded) => Uint8Array.from(atob(coded), (letter) => letter.charCodeAt(0));
export const same = (a, b) => a.length === b.length && a.every((byte, index) => byte === b[index]);

/** `name+hash+key`: the key id must be the one that name and key give. */
export async function parseVkey(vkey) {
  const [name, id, ...rest] = vkey.trim().split('+');
  const key = base64(rest.join('+'));
  const type = key[0];
  if ((type !== 1 && type !== 4) || key.length !== 33) throw new Error('not an Ed25519 key');
  const made = hex((await sha256(utf8(`${name}\n`), key)).subarray(0, 4));
  if (made !== id) throw new Error('the key id does not go with name and key');
  return { vkey: vkey.trim(), name, id, type, key: key.subarray(1) };
}

/** A signed note: its text, and its signature lines. */
export function parseNote(note) {
  const end = note.lastIndexOf('\n\n');
  if (end < 0 || !note.endsWith('\n')) throw new Error('not a signed note');
  const lines = note.slice(end + 2, -1).split('\n');
  const signatures = lines.map((line) => {
    const [dash, name, signature] = line.split(' ');
    if (dash !== '—' || !signature) throw new Error('not a signature line');
    const bytes = base64(signature);
    return { name, id: hex(bytes.subarray(0, 4)), bytes: bytes.subarray(4) };
  });
  return { text: note.slice(0, end + 1), signatures };
}

/** Origin, size and root of a checkpoint's text. */
export function parseCheckpoint(note) {
  const parsed = parseNote(note);
  const [origin, size, root] = parsed.text.split('\n');
  if (!/^(0|[1-9]\d{0,15})$/.test(size)) throw new Error('a checkpoint without a size');
  const hash = base64(root);
  if (hash.length !== 32) throw new Error('a checkpoint without a root');
  return { ...parsed, note, origin, size: Number(size), root: hash };
}

async function ed25519(key, signature, message) {
  const imported = await crypto.subtle.importKey('raw', key, { name: 'Ed25519' }, false, ['verify']);
  return crypto.subtle.verify({ name: 'Ed25519' }, imported, signature, message);
}

/** Whether this browser can check signatures at all. */
export async function canVerify() {
  try {
    await crypto.subtle.importKey('raw', new Uint8Array(32), { name: 'Ed25519' }, false, ['verify']);
    return true;
  } catch (error) {
    return error.name !== 'NotSupportedError';
  }
}

/** A log's signature: true, false, or null where the note has none of this key. */
export async function signed(note, vkey) {
  const line = note.signatures.find(({ name, id }) => name === vkey.name && id === vkey.id);
  if (!line) return null;
  return vkey.type === 1 && line.bytes.length === 64 && ed25519(vkey.key, line.bytes, utf8(note.text));
}

/** A witness's cosignature (type 04): { ok, time in ms }, or null where there is none. */
export async function cosigned(note, vkey) {
  const line = note.signatures.find(({ name, id }) => name === vkey.name && id === vkey.id);
  if (!line) return null;
  if (vkey.type !== 4 || line.bytes.length !== 72) return { ok: false, time: 0 };
  const time = line.bytes.subarray(0, 8).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  const message = utf8(`cosignature/v1\ntime ${time}\n${note.text}`);
  return { ok: await ed25519(vkey.key, line.bytes.subarray(8), message), time: Number(time) * 1000 };
}

/** A tile's path: level is a number or "entries"; width as the tree of that size has it. */
export function tilePath(level, number, width) {
  const digits = String(number).padStart(Math.ceil(String(number).length / 3) * 3, '0');
  const parts = digits.match(/\d{3}/g);
  const name = parts.map((part, index) => (index < parts.length - 1 ? `x${part}` : part)).join('/');
  return `tile/${level}/${name}${width < TILE ? `.p/${width}` : ''}`;
}

/** How many hashes of a level a tree of this size has in a tile. */
export function tileWidth(size, level, number) {
  return Math.min(TILE, Math.floor(size / TILE ** level) - number * TILE);
}

/** A bundle's entries. */
export function* bundle(bytes) {
  for (let at = 0; at < bytes.length;) {
    const length = (bytes[at] << 8) | bytes[at + 1];
    if (at + 2 + length > bytes.length) throw new Error('a bundle that ends in the middle of an entry');
    yield bytes.subarray(at + 2, at + 2 + length);
    at += 2 + length;
  }
}

/** Hash of the complete subtree of 2^level leaves with this number, from tiles: readTile(level, number) gives a tile's bytes. */
async function subtree(level, number, readTile) {
  const [tileLevel, above] = [Math.floor(level / 8), level % 8];
  const first = number * 2 ** above;
  const tile = await readTile(tileLevel, Math.floor(first / TILE));
  const from = first % TILE;
  let hashes = Array.from({ length: 2 ** above }, (_, index) =>
    tile.subarray((from + index) * 32, (from + index + 1) * 32),
  );
  if (hashes.some((hash) => hash.length !== 32)) throw new Error('a tile that is too short');
  while (hashes.length > 1) {
    hashes = await Promise.all(
      Array.from({ length: hashes.length / 2 }, (_, index) => nodeHash(hashes[2 * index], hashes[2 * index + 1])),
    );
  }
  return hashes[0];
}

/** The largest power of two below a number of at least 2. */
const split = (count) => 2 ** Math.floor(Math.log2(count - 1));

/** RFC 6962's MTH over leaves `from` to `to - 1`. */
async function treeHash(from, to, readTile) {
  const count = to - from;
  const level = Math.round(Math.log2(count));
  if (2 ** level === count && from % count === 0) return subtree(level, from / count, readTile);
  const middle = from + split(count);
  return nodeHash(await treeHash(from, middle, readTile), await treeHash(middle, to, readTile));
}

/** RFC 6962's audit path of a leaf in a tree of this size, from the leaf's sibling up. */
export async function inclusionPath(index, size, readTile) {
  const path = [];
  let [from, to] = [0, size];
  while (to - from > 1) {
    const middle = from + split(to - from);
    if (index < middle) {
      path.unshift(await treeHash(middle, to, readTile));
      to = middle;
    } else {
      path.unshift(await treeHash(from, middle, readTile));
      from = middle;
    }
  }
  return path;
}

/** Where an audit path leads (RFC 9162, 2.1.3.2). */
export async function rootOf(hash, index, size, path) {
  if (!(index >= 0 && index < size) || path.some((sibling) => sibling.length !== 32))
    throw new Error('no such place in the tree');
  let [node, last] = [BigInt(index), BigInt(size) - 1n];
  for (const sibling of path) {
    if (last === 0n) throw new Error('the path is longer than the tree is high');
    if (node & 1n || node === last) {
      hash = await nodeHash(sibling, hash);
      while (!(node & 1n) && node !== 0n) [node, last] = [node >> 1n, last >> 1n];
    } else {
      hash = await nodeHash(hash, sibling);
    }
    [node, last] = [node >> 1n, last >> 1n];
  }
  if (last !== 0n) throw new Error('the path is shorter than the tree is high');
  return hash;
}

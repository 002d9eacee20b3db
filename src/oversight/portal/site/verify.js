// What the browser itself finds out about an entry: whose key, what it signed, which witnesses saw it, and that the entry stands in
// the tree that they signed. Nothing is believed but the keys in portal.json. Each step says what it means where it fails.

import { canVerify, cosigned, hex, inclusionPath, leafHash, parseVkey, rootOf, same, signed } from './tlog.js';
import { age, moment, number, t } from './text.js';

const TILE = 256;

const bad = (title, told, detail) => ({ state: 'bad', title, told, detail });
const good = (title, told, detail) => ({ state: 'good', title, told, detail });
const warn = (title, told, detail) => ({ state: 'warn', title, told, detail });

/** Key, checkpoint and witnesses of a log: the steps, and the checkpoint if it may be gone by. */
export async function* checkCheckpoint(log, sources) {
  let key;
  try {
    key = await log.key();
  } catch (error) {
    yield bad(t('verify-key'), t('verify-key-bad'), String(error.message));
    return null;
  }
  const node = sources.directory.nodes.find(({ vkey }) => vkey === log.vkey);
  yield node
    ? good(t('verify-key'), t('verify-key-good', { member: node.member, version: sources.directory.version }), log.vkey)
    : warn(t('verify-key'), t('verify-key-unknown'), log.vkey);
  if (!(await canVerify())) {
    yield warn(t('verify-signature'), t('verify-no-ed25519'));
    return null;
  }
  let checkpoint;
  try {
    checkpoint = await log.checkpoint();
  } catch (error) {
    yield bad(t('verify-signature'), t('verify-checkpoint-unreadable'), String(error.message));
    return null;
  }
  const isSigned = checkpoint.origin === key.name ? await signed(checkpoint, key) : null;
  if (!isSigned) {
    yield bad(
      t('verify-signature'),
      t(isSigned === null ? 'verify-signature-none' : 'verify-signature-bad'),
      checkpoint.text,
    );
    return null;
  }
  yield good(t('verify-signature'), t('verify-signature-good', { size: checkpoint.size }), hex(checkpoint.root));
  yield await checkWitnesses(checkpoint, sources.policy);
  return checkpoint;
}

async function checkWitnesses(checkpoint, policy) {
  if (!policy || policy.witnesses.length === 0) return warn(t('verify-witnesses'), t('verify-witnesses-none'));
  const seen = await witnesses(checkpoint, policy);
  const detail = seen
    .map(
      ({ name, ok, time }) =>
        `${name}: ${ok ? moment(time, true) : t(ok === null ? 'verify-not-cosigned' : 'verify-wrong-cosignature')}`,
    )
    .join('; ');
  if (seen.some(({ ok }) => ok === false)) return bad(t('verify-witnesses'), t('verify-witnesses-bad'), detail);
  const names = new Set(seen.filter(({ ok }) => ok).map(({ name }) => name));
  if (!policy.met(names)) return bad(t('verify-witnesses'), t('verify-witnesses-few'), detail);
  const newest = Math.max(0, ...seen.map(({ time }) => time));
  return good(
    t('verify-witnesses'),
    t('verify-witnesses-good', { n: names.size, age: age(Date.now() - newest) }),
    detail,
  );
}

/** What each witness of a policy says of a checkpoint: { name, ok (null: nothing), time }. */
export async function witnesses(checkpoint, policy) {
  return Promise.all(
    (policy?.witnesses ?? []).map(async ({ name, vkey }) => {
      try {
        const found = await cosigned(checkpoint, await parseVkey(vkey));
        return { name, ok: found?.ok ?? null, time: found?.ok ? found.time : 0 };
      } catch {
        return { name, ok: false, time: 0 };
      }
    }),
  );
}

/** That an entry stands in the tree of a checkpoint: from its bytes as they are published. */
export async function* checkEntry(log, index, checkpoint) {
  const { size, root } = checkpoint;
  if (index >= size) {
    yield bad(t('verify-entry'), t('verify-entry-beyond'));
    return;
  }
  let leaf;
  try {
    const bytes = (await log.raw(Math.floor(index / TILE), size))[index % TILE];
    if (!bytes) throw new Error('the bundle is too short');
    leaf = await leafHash(bytes);
    yield good(t('verify-entry'), t('verify-entry-good', { index: number(index), n: bytes.length }), hex(leaf));
  } catch (error) {
    yield bad(t('verify-entry'), t('verify-entry-unreadable'), String(error.message));
    return;
  }
  const readTile = (level, tile) => log.tile(level, tile, size);
  try {
    const tile = await readTile(0, Math.floor(index / TILE));
    const told = tile.subarray((index % TILE) * 32, (index % TILE) * 32 + 32);
    yield same(told, leaf)
      ? good(t('verify-tile'), t('verify-tile-good'))
      : bad(t('verify-tile'), t('verify-tile-bad'), `${hex(told)} ≠ ${hex(leaf)}`);
    const path = await inclusionPath(index, size, readTile);
    const led = await rootOf(leaf, index, size, path);
    yield same(led, root)
      ? good(t('verify-root'), t('verify-root-good', { n: path.length }), hex(led))
      : bad(t('verify-root'), t('verify-root-bad'), `${hex(led)} ≠ ${hex(root)}`);
  } catch (error) {
    yield bad(t('verify-root'), t('verify-tile-unreadable'), String(error.message));
  }
}

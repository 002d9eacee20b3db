// Judges .tlog-proof files by the npm package @sigstore/verify: the checkpoint's signature, and the inclusion proof.
//
//     sigstore.cjs <node_modules>     standard input: {"vkey": "…", "proofs": [{"proof": "…", "entry": "<base64>"}]}
const crypto = require('node:crypto');
const path = require('node:path');
const fs = require('node:fs');

const tlog = path.resolve(process.argv[2], '@sigstore/verify/dist/tlog');
const { verifyCheckpoint } = require(path.join(tlog, 'checkpoint.js'));
const { verifyMerkleInclusion } = require(path.join(tlog, 'merkle.js'));

const { vkey, proofs } = JSON.parse(fs.readFileSync(0, 'utf8'));
const [, name, id, key] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(vkey);
// An Ed25519 key in SPKI: a fixed head, and the 32 bytes behind the type.
const spki = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), Buffer.from(key, 'base64').subarray(1)]);
const log = {
  logID: Buffer.from(id, 'hex'),
  baseURL: name,
  publicKey: crypto.createPublicKey({ key: spki, format: 'der', type: 'spki' }),
};

for (const { proof, entry } of proofs) {
  const split = proof.indexOf('\n\n');
  const [header, index, ...hashes] = proof.slice(0, split).split('\n');
  if (header !== 'c2sp.org/tlog-proof@v1') throw new Error('no tlog-proof');
  const logEntry = {
    canonicalizedBody: Buffer.from(entry, 'base64'),
    inclusionProof: {
      logIndex: index.slice('index '.length),
      hashes: hashes.map((hash) => Buffer.from(hash, 'base64')),
      checkpoint: { envelope: proof.slice(split + 2) },
    },
  };
  try {
    verifyMerkleInclusion(logEntry, verifyCheckpoint(logEntry, [log]));
  } catch (refused) {
    // Their refusals have a code; anything else is a fault of ours.
    if (refused.code !== 'TLOG_INCLUSION_PROOF_ERROR') throw refused;
    console.error(refused.message);
    process.exit(3);
  }
}

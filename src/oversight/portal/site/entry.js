// Reads kopuro.log.v1.Entry, as far as the portal shows it. Fields of a later version are skipped.

import { hex, text } from './tlog.js';

const KINDS = [
  '',
  'REQUEST_SENT',
  'REQUEST_RECEIVED',
  'RESPONSE_SENT',
  'RESPONSE_RECEIVED',
  'REFUSED',
  'FAILED',
  'AUDIT',
  'REQUEST_COMPLETED',
  'ERASURE',
  'OPENED',
  'EVIDENCE',
  'SUBJECTS',
];
const OUTCOMES = ['', 'OK', 'ERROR', 'REFUSED', 'FAILED'];
const CLASSES = ['', 'PUBLIC', 'DELAYED', 'SEALED'];
const SIDES = ['', 'CONSUMER', 'PROVIDER'];

/** The fields of a protobuf message: [number, value], a value being a BigInt or bytes. */
export function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (at >= bytes.length) throw new Error('a message that ends too early');
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw new Error('a number that is too long');
  };
  const take = (length) => {
    if (length > bytes.length - at) throw new Error('a message that ends too early');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = varint();
    const [number, type] = [Number(key >> 3n), Number(key & 7n)];
    if (number === 0) throw new Error('a field without a number');
    if (type === 0) yield [number, varint()];
    else if (type === 2) yield [number, take(Number(varint()))];
    else if (type === 5) yield [number, take(4)];
    else if (type === 1) yield [number, take(8)];
    else throw new Error('a field of an unknown form');
  }
}

/** Text of a log without what would hide or turn around the text beside it. */
export const told = (value) =>
  text(value).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, '\ufffd');

/** An exchange id as it is written: UUID. */
export function uuid(bytes) {
  if (bytes.length !== 16) return '';
  return hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** When a UUIDv7 was made, milliseconds since the Unix epoch. */
export const uuidTime = (id) => Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16);

export const isUuid = (id) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id);

function blank() {
  return {
    kind: '',
    exchange: '',
    time: 0,
    consumer: '',
    provider: '',
    service: '',
    method: '',
    basis: '',
    publication: '',
    delayDays: 0,
    outcome: '',
    status: 0,
    reason: '',
    side: '',
    commitment: new Uint8Array(),
    peerCheckpoint: '',
    schema: '',
    opened: null,
  };
}

/** An entry's fields by name. */
export function decode(bytes, entry = blank()) {
  const name = (names, value) => names[Number(value)] ?? String(value);
  for (const [number, value] of fields(bytes)) {
    const isNumber = typeof value === 'bigint';
    if (isNumber !== [1, 3, 9, 10, 11, 12, 14].includes(number)) continue;
    switch (number) {
      case 1:
        entry.kind = name(KINDS, value);
        break;
      case 2:
        entry.exchange = uuid(value);
        break;
      case 3:
        entry.time = Number(BigInt.asIntN(64, value));
        break;
      case 4:
        entry.consumer = told(value);
        break;
      case 5:
        entry.provider = told(value);
        break;
      case 6:
        entry.service = told(value);
        break;
      case 7:
        entry.method = told(value);
        break;
      case 8:
        entry.basis = told(value);
        break;
      case 9:
        entry.publication = name(CLASSES, value);
        break;
      case 10:
        entry.delayDays = Number(value);
        break;
      case 11:
        entry.outcome = name(OUTCOMES, value);
        break;
      case 12:
        entry.status = Number(value);
        break;
      case 13:
        entry.reason = told(value);
        break;
      case 14:
        entry.side = name(SIDES, value);
        break;
      case 15:
        entry.commitment = value;
        break;
      case 16:
        entry.peerCheckpoint = text(value);
        break;
      case 19:
        entry.opened = opened(value);
        break;
      case 20:
        entry.schema = hex(value);
        break;
    }
  }
  return entry;
}

/** What an entry opens: another one's index and hidden fields. */
function opened(bytes) {
  const found = { index: 0, hidden: null };
  for (const [number, value] of fields(bytes)) {
    if (number === 1) found.index = Number(value);
    if (number === 2) found.hidden = decode(value);
  }
  return found.hidden ? found : null;
}

/** `KG/GOV/1` of `KG/GOV/1/desk`. */
export const memberOf = (system) => system.split('/').slice(0, 3).join('/');
export const systemName = (system) => system.split('/').slice(3).join('/');

const CLOSING = ['RESPONSE_SENT', 'RESPONSE_RECEIVED', 'REFUSED', 'FAILED'];
const OPENING = ['REQUEST_SENT', 'REQUEST_RECEIVED'];
export const closes = (entry) => CLOSING.includes(entry.kind);
export const opens = (entry) => OPENING.includes(entry.kind);

/** Whether it shows nothing but its class. */
export const hides = (entry) => entry.kind === '' && ['DELAYED', 'SEALED'].includes(entry.publication);

/** As what a log's member took part, as the summaries count it: asked, answered or look; empty of what ends nothing. */
export function role(entry, member) {
  if (entry.kind === 'AUDIT') return 'look';
  if (entry.kind === 'RESPONSE_RECEIVED') return 'asked';
  if (entry.kind === 'RESPONSE_SENT') return 'answered';
  if (entry.kind !== 'REFUSED' && entry.kind !== 'FAILED') return '';
  const [consumer, provider] = [memberOf(entry.consumer) === member, memberOf(entry.provider) === member];
  if (consumer && provider) return entry.side === 'PROVIDER' && entry.kind === 'REFUSED' ? 'answered' : 'asked';
  return consumer ? 'asked' : 'answered';
}

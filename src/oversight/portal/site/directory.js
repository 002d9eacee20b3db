// The federation's directory, as far as the portal shows it: members' names, logs' keys, services, purposes.

import { lang } from './text.js';
import { canVerify, parseNote, parseVkey, signed } from './tlog.js';

/** The fields of a line: words, or "quoted" with \" and \\ in them. */
function words(line) {
  const found = line.match(/"(?:[^"\\]|\\.)*"|[^ ]+/g) ?? [];
  return found.map((word) => (word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/g, '$1') : word));
}

export function readDirectory(note) {
  const directory = {
    federation: '',
    version: 0,
    expires: '',
    threshold: 1,
    council: [],
    note,
    members: new Map(),
    nodes: [],
    systems: [],
    services: [],
    purposes: [],
  };
  for (const line of note.split('\n\n')[0].split('\n')) {
    const [kind, ...rest] = words(line);
    if (kind === 'federation') directory.federation = rest[0];
    if (kind === 'version') directory.version = Number(rest[0]);
    if (kind === 'threshold') directory.threshold = Number(rest[0]);
    if (kind === 'council') directory.council.push(rest[0]);
    if (kind === 'expires') directory.expires = rest[0];
    if (kind === 'member') directory.members.set(rest[0], { ky: rest[1], ru: rest[2], en: rest[3] });
    if (kind === 'node') directory.nodes.push({ member: rest[0], name: rest[1], vkey: rest[3] });
    if (kind === 'log-key') directory.nodes.push({ member: rest[0], name: rest[1], vkey: rest[2] });
    if (kind === 'system') directory.systems.push(rest[0]);
    if (kind === 'service') directory.services.push({ name: rest[0], provider: rest[1] });
    if (kind === 'purpose')
      directory.purposes.push({ code: rest[0], law: rest[1], ky: rest[2], ru: rest[3], en: rest[4] });
  }
  return directory;
}

/** Whether enough of a directory's council have signed another (or itself). Where the browser cannot tell, it is taken. */
export async function isSignedBy(directory, { council, threshold }) {
  if (!(await canVerify())) return true;
  try {
    const note = parseNote(directory.note);
    const good = await Promise.all(council.map(async (vkey) => signed(note, await parseVkey(vkey))));
    return threshold > 0 && good.filter((is) => is === true).length >= threshold;
  } catch {
    return false;
  }
}

/** What official names have in common, and a reader need not read each time. */
const COMMON = {
  ky: [/^Кыргыз Республикасынын (Министрлер Кабинетине караштуу )?/],
  ru: [/ при Кабинете Министров Кыргызской Республики$/, / Кыргызской Республики$/],
  en: [/ under the Cabinet of Ministers of the Kyrgyz Republic$/, / of the Kyrgyz Republic$/],
};

/** A member's official name. */
export const fullName = (directory, member) => directory.members.get(member)?.[lang()] ?? member;

/** A member's name without what all names have in common. */
export function shortName(directory, member) {
  const name = fullName(directory, member);
  const short = COMMON[lang()].reduce((name, common) => name.replace(common, ''), name);
  return short.charAt(0).toUpperCase() + short.slice(1);
}

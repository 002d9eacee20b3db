// A C2SP tlog-policy: which witnesses there are, and how many of them make a quorum.

export class Policy {
  constructor(text) {
    this.witnesses = [];
    this.groups = new Map();
    this.quorum = 'none';
    for (const line of text.split('\n')) {
      const [kind, ...rest] = line.trim().split(/\s+/);
      if (kind === 'witness') this.witnesses.push({ name: rest[0], vkey: rest[1] });
      if (kind === 'group') this.groups.set(rest[0], { most: rest[1], members: rest.slice(2) });
      if (kind === 'quorum') [this.quorum] = rest;
    }
  }

  /** Whether these witnesses are enough. */
  met(names, of = this.quorum) {
    if (of === 'none') return true;
    const group = this.groups.get(of);
    if (!group) return names.has(of);
    const met = group.members.filter((member) => this.met(names, member)).length;
    const wanted = { any: 1, all: group.members.length }[group.most] ?? Number(group.most);
    return met >= wanted;
  }
}

#!/usr/bin/env python3
"""A backup's entries, judged by nothing but its documentation: FOLDER is what `age -d … | tar x` gave of the log's part.

Computes the RFC 6962 root of the entries in tile/entries and compares it with that of `checkpoint`; prints how many there are.
"""

import base64
import hashlib
import sys
from pathlib import Path


def leaves(folder):
    """Leaf hashes of all bundles, in order."""
    names = {}
    for path in (folder / "tile/entries").rglob("*"):
        if path.is_file():
            name = str(path.relative_to(folder / "tile/entries")).partition(".p/")[0]
            names[int(name.replace("x", "").replace("/", ""))] = path
    for number in sorted(names):
        bundle, at = names[number].read_bytes(), 0
        while at < len(bundle):
            length = int.from_bytes(bundle[at:at + 2], "big")
            yield hashlib.sha256(b"\0" + bundle[at + 2:at + 2 + length]).digest()
            at += 2 + length


def root(hashes):
    """By the definition: split at the largest power of two below the size."""
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(hashes[:half]) + root(hashes[half:])).digest()


def main():
    folder = Path(sys.argv[1])
    _, size, signed = (folder / "checkpoint").read_text(encoding="utf-8").splitlines()[:3]
    hashes = list(leaves(folder))
    if len(hashes) != int(size) or root(hashes) != base64.b64decode(signed):
        sys.exit(f"{len(hashes)} entries, and another root than the checkpoint's of {size}")
    print(len(hashes))


main()

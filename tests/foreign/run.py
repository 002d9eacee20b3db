#!/usr/bin/env python3
"""Published logs, judged by verifiers that nobody here wrote.

The Python package aics-tlog audits every tile and entry, and makes and checks proofs; the npm package @sigstore/verify
checks a checkpoint's signature and the inclusion proofs that `kopuro log proof` writes. Both must accept each log given,
and refuse it with one bit of an entry flipped, one of a tile, another root, or another key.

    run.py --kopuro target/release/kopuro --work target/foreign LOG...

Each LOG is a folder with `checkpoint`, `tile/` and `vkey`, and perhaps `older-checkpoint`.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

AICS = "aics-tlog==0.2.1"
SIGSTORE = "@sigstore/verify@3.1.1"
HERE = Path(__file__).resolve().parent


class Refused(Exception):
    """What a verifier says of what it does not accept."""


def fetch(work):
    """Both packages, once. aics-tlog asks for Python 3.12 and runs on 3.11."""
    wheel, node = work / "wheel", work / "node"
    if not (wheel / "aics_tlog").is_dir():
        shutil.rmtree(wheel, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--ignore-requires-python", "--target", wheel, AICS], check=True)
    if not (node / "node_modules/@sigstore/verify").is_dir():
        node.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save",
                        "--prefix", node, SIGSTORE], check=True)
    sys.path.insert(0, str(wheel))
    return node


def sample(size):
    """Indices at the edges of tiles, and some between."""
    wanted = [0, 1, 255, 256, 511, 65_535, 65_536, size // 2, size // 3, size - 2, size - 1]
    return sorted({index for index in wanted if 0 <= index < size})


def aics(log, vkey):
    """Everything in a published log, by aics-tlog. Raises where anything does not hold."""
    import aics_tlog as tlog

    note = (log / "checkpoint").read_bytes()
    result = tlog.verify_checkpoint(tlog.parse_note(note), tlog.parse_vkey(vkey))
    if not result.ok:
        raise Refused(f"checkpoint: {result.error}")
    checkpoint, _ = tlog.checkpoint.checkpoint_from_note(note)
    reader = tlog.FileSystemTileReader(log)
    report = tlog.audit_tiles(reader, checkpoint.size, checkpoint.root)
    for index in sample(checkpoint.size):
        entry = tlog.read_entry(reader, index, checkpoint.size)
        proof = tlog.inclusion_proof_from_tiles(reader, index, checkpoint.size)
        if not tlog.verify_leaf_inclusion(entry, index, checkpoint.size, proof, checkpoint.root):
            raise ValueError(f"entry {index} is not included")
    older = log / "older-checkpoint"
    if older.exists():
        if not tlog.verify_checkpoint(tlog.parse_note(older.read_bytes()), tlog.parse_vkey(vkey)).ok:
            raise ValueError("older checkpoint refused")
        old, _ = tlog.checkpoint.checkpoint_from_note(older.read_bytes())
        proof = tlog.consistency_proof_from_tiles(reader, old.size, checkpoint.size)
        if not tlog.verify_consistency(old.size, checkpoint.size, old.root, checkpoint.root, proof):
            raise ValueError("not a continuation of the older checkpoint")
    return checkpoint.size, report


def sigstore(node, work, kopuro, log, vkey):
    """Inclusion proofs written by kopuro, by @sigstore/verify. Raises where anything does not hold."""
    size = int((log / "checkpoint").read_text().split("\n")[1])
    proofs = []
    for index in sample(size):
        proof, entry = work / "one.tlog-proof", work / "one.entry"
        subprocess.run([kopuro, "log", "proof", str(index), log, "--vkey", vkey, "-o", proof, "--entry", entry],
                       check=True, stdout=subprocess.DEVNULL)
        proofs.append({"proof": proof.read_text(), "entry": base64.b64encode(entry.read_bytes()).decode()})
    return judge_by_sigstore(node, proofs, vkey)


def judge_by_kopuro(kopuro, log, vkey):
    answer = subprocess.run([kopuro, "log", "verify", log, "--vkey", vkey], capture_output=True, text=True)
    if answer.returncode == 1:
        raise Refused(answer.stderr.strip())
    if answer.returncode:
        sys.exit(f"FAILED: kopuro log verify: {answer.stderr}")


def judge_by_sigstore(node, proofs, vkey):
    asked = json.dumps({"proofs": proofs, "vkey": vkey})
    answer = subprocess.run(["node", HERE / "sigstore.cjs", node / "node_modules"], input=asked, text=True,
                            capture_output=True)
    if answer.returncode == 3:
        raise Refused(answer.stderr.strip())
    if answer.returncode:
        sys.exit(f"FAILED: sigstore.cjs: {answer.stderr}")
    return proofs


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def other_root(note):
    lines = note.split("\n")
    root = bytearray(base64.b64decode(lines[2]))
    root[0] ^= 1
    lines[2] = base64.b64encode(root).decode()
    return "\n".join(lines)


def other_key(vkey):
    """Another key of the same name."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    import aics_tlog as tlog

    name = vkey.split("+")[0]
    return str(tlog.format_vkey(tlog.vkey_from_ed25519(name, Ed25519PrivateKey.generate().public_key())))


def must_refuse(what, judge):
    try:
        judge()
    except (Refused, ValueError) as refused:  # aics-tlog's are ValueErrors
        print(f"    refused: {what}: {str(refused)[:110]}")
        return
    sys.exit(f"FAILED: accepted {what}")


def tampered(log, work, change):
    copy = work / "tampered"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(log, copy)
    change(copy)
    return copy


def check(log, node, work, kopuro):
    vkey = (log / "vkey").read_text().strip()
    print(f"{log}: {vkey.split('+')[0]}")
    size, report = aics(log, vkey)
    print(f"    aics-tlog accepts {size} entries: {report}")
    if size == 0:
        return
    proofs = sigstore(node, work, kopuro, log, vkey)
    print(f"    @sigstore/verify accepts {len(proofs)} proofs")

    stranger = other_key(vkey)
    bundle = next(path for path in sorted((log / "tile/entries").rglob("*")) if path.is_file()).relative_to(log)
    hashes = next(path for path in sorted((log / "tile/0").rglob("*")) if path.is_file()).relative_to(log)
    for what, change in [
        ("a flipped entry", lambda copy: flip(copy / bundle, 4)),
        ("a flipped hash", lambda copy: flip(copy / hashes, 4)),
        ("another root", lambda copy: (copy / "checkpoint").write_text(other_root((copy / "checkpoint").read_text()))),
    ]:
        copy = tampered(log, work, change)
        must_refuse(f"{what}, by aics-tlog", lambda: aics(copy, vkey))
        must_refuse(f"{what}, by kopuro", lambda: judge_by_kopuro(kopuro, copy, vkey))
    must_refuse("another key, by aics-tlog", lambda: aics(log, stranger))

    first = proofs[0]
    entry = bytearray(base64.b64decode(first["entry"]))
    entry[-1] ^= 1
    head, note = first["proof"].split("\n\n", 1)
    for what, proof, key in [
        ("a flipped entry", {**first, "entry": base64.b64encode(entry).decode()}, vkey),
        ("another root", {**first, "proof": f"{head}\n\n{other_root(note)}"}, vkey),
        ("another key", first, stranger),
    ]:
        must_refuse(f"{what}, by @sigstore/verify", lambda: judge_by_sigstore(node, [proof], key))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kopuro", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("logs", type=Path, nargs="+", metavar="LOG")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    node = fetch(args.work)
    for log in args.logs:
        check(log, node, args.work, args.kopuro.resolve())
    shutil.rmtree(args.work / "tampered", ignore_errors=True)
    print(f"{len(args.logs)} logs accepted, and refused when tampered with")


if __name__ == "__main__":
    main()

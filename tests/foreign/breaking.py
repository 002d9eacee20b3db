#!/usr/bin/env python3
"""Breaking changes, judged by buf: for every pair in tests/vectors/breaking.txt it must report the rules that stand there.

tests/schema_breaking.rs holds our own verdict to the same file, so the two agree; where they are not to, the file says so and why.
buf's binary is in the npm package; it is asked nothing over the network.

    breaking.py --work target/foreign
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BUF = "@bufbuild/buf@1.75.0"
ROOT = Path(__file__).resolve().parents[2]
HEAD = 'syntax = "proto3";\npackage t.v1;\n'
CONFIG = "version: v2\nbreaking:\n  use: [WIRE_JSON, PACKAGE]\n"


def fetch(work):
    node = work / "node"
    buf = node / "node_modules/.bin/buf"
    if not buf.exists():
        node.mkdir(parents=True, exist_ok=True)
        # The package's own script only picks the binary for the platform, and nothing is lost without it.
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save",
                        "--prefix", node, BUF], check=True)
    return buf.resolve()


def pairs(text):
    """Each pair's name, the rules that buf is to report, and the files of both sides by path."""
    for section in text.split("\n=== ")[1:]:
        head, *parts = ("\n" + section).split("\n--- ")
        lines = head.strip().split("\n")
        rules = {word for line in lines[1:] if line.startswith("=") for word in line.split()[1:]}
        rules = {rule for rule in rules if not rule.startswith("KOPURO_")}
        for line in lines[1:]:
            if line.split()[0] == "buf":
                rules = set(line.split()[1:])
        sides = {"before": {}, "after": {}}
        for part in parts:
            title, _, body = part.partition("\n")
            side, _, path = title.strip().partition(" ")
            sides[side][path or "t/v1/a.proto"] = body if "syntax = " in body else HEAD + body
        yield lines[0], rules, sides["before"], sides["after"]


def judge(buf, folder, before, after):
    """The rules that buf says are broken."""
    shutil.rmtree(folder, ignore_errors=True)
    for side, files in (("before", before), ("after", after)):
        for path, body in files.items():
            file = folder / side / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(body)
            for import_ in ("kopuro/options/v1/options.proto", "buf/validate/validate.proto"):
                if f'import "{import_}"' in body:
                    (folder / side / import_).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / "proto" / import_, folder / side / import_)
        (folder / side / "buf.yaml").write_text(CONFIG)
    answer = subprocess.run([buf, "breaking", "after", "--against", "before", "--error-format", "json"], cwd=folder,
                            capture_output=True, text=True, env={**os.environ, "BUF_CACHE_DIR": str(folder / "cache")})
    if answer.returncode not in (0, 100):
        sys.exit(f"FAILED: buf: {answer.stdout}{answer.stderr}")
    return {json.loads(line)["type"] for line in answer.stdout.splitlines()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    buf = fetch(work)
    cases = list(pairs((ROOT / "tests/vectors/breaking.txt").read_text()))
    with ThreadPoolExecutor(max_workers=2) as pool:
        folders = [work / "pairs" / str(number) for number in range(len(cases))]
        verdicts = list(pool.map(lambda case, folder: judge(buf, folder, case[2], case[3]), cases, folders))
    wrong = 0
    for (name, expected, _, _), found in zip(cases, verdicts):
        if found != expected:
            wrong += 1
            print(f"{name}\n    only buf reports: {sorted(found - expected)}\n    only the file has: {sorted(expected - found)}")
    rules = set().union(*(expected for _, expected, _, _ in cases))
    if wrong:
        sys.exit(f"FAILED: {wrong} of {len(cases)} pairs")
    print(f"buf agrees on {len(cases)} pairs that break {len(rules)} of its rules")


if __name__ == "__main__":
    main()

"""Foreign witnesses and logs: PyPI's aics-witness and aics-tlog, which nobody here wrote, with ours, both ways.

    python tests/interop/witness.py --kopuro target/release/kopuro

A foreign log has its checkpoints cosigned by `kopuro witness`, through the foreign client, and judged by the foreign
verifier. Then a Kopuro log has its checkpoints cosigned by the foreign witness: `cargo test` runs that part (the ignored
test cosigners::a_foreign_witness_cosigns_our_log). Needs `cryptography`, pip and cargo. Prints a line per check and, last,
`N passed, M failed`; exits 0 only if none failed.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from run import passed

HERE = Path(__file__).parent
ORIGIN = "foreign.example/log"


def fetch(folder):
    """The wheels, unpacked: what is in them runs on this Python, though they ask for a newer one."""
    if not (folder / "aics_witness").is_dir():
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--only-binary=:all:", "--python-version=3.12", "--require-hashes", f"--dest={folder}",
             f"--requirement={HERE / 'witness-requirements.txt'}"],
            check=True,
        )
        for wheel in folder.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
    sys.path.insert(0, str(folder))


class Ours:
    """`kopuro witness run`, following the foreign log."""

    def __init__(self, kopuro, folder):
        from aics_tlog import format_vkey, vkey_from_ed25519
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.kopuro, self.folder, self.process = kopuro, folder, None
        self.log_key = Ed25519PrivateKey.generate()
        self.log_vkey = vkey_from_ed25519(ORIGIN, self.log_key.public_key())
        made = subprocess.run(
            [kopuro, "witness", "keygen", "--name", "witness.council.kg/w1", "--out", "witness.key", "--state", "state"],
            cwd=folder, check=True, capture_output=True, text=True,
        )
        self.vkey = made.stdout.strip()
        self.port, admin = free_port(), free_port()
        (folder / "witness.toml").write_text(
            f'listen = "127.0.0.1:{self.port}"\nadmin = "127.0.0.1:{admin}"\nlogs = ["{format_vkey(self.log_vkey)}"]\n'
        )

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen([self.kopuro, "witness", "run"], cwd=self.folder, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url, timeout=1)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise AssertionError("kopuro witness did not start")

    def end(self, how):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(20)
        self.process = None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def signed(ours, tree):
    from aics_tlog import Checkpoint, sign_checkpoint

    return sign_checkpoint(Checkpoint(ORIGIN, tree.size, tree.root()), ours.log_key, ORIGIN).to_bytes()


def client(ours):
    from aics_witness.feeder import WitnessClient

    return WitnessClient(ours.url, ours.vkey, max_attempts=1)


def a_foreign_log_is_cosigned(ours, tree):
    from aics_tlog import parse_note, parse_vkey, verify_checkpoint
    from aics_witness.feeder import merge_cosignatures

    feeder = client(ours)
    for entries in [1, 1, 5, 250, 4_000]:
        for _ in range(entries):
            tree.append(f"entry {tree.size}".encode())
        note = signed(ours, tree)
        cosigned = merge_cosignatures(note, feeder.submit(note, tree.consistency_proof))
        verdict = verify_checkpoint(parse_note(cosigned), ours.log_vkey, [parse_vkey(ours.vkey)], 1, max_age_seconds=60)
        assert verdict.ok, verdict


def the_same_checkpoint_again_and_a_client_that_forgot(ours, tree):
    note = signed(ours, tree)
    client(ours).submit(note, tree.consistency_proof)
    client(ours).submit(note, tree.consistency_proof)


def a_fork_is_refused(ours, tree):
    from aics_tlog import MerkleTree
    from aics_witness.feeder import WitnessRejected

    fork = MerkleTree([f"other {number}".encode() for number in range(tree.size)])
    for history in [fork, MerkleTree([*(b"x" for _ in range(tree.size + 9))])]:
        try:
            client(ours).submit(signed(ours, history), history.consistency_proof)
        except WitnessRejected as refused:
            assert refused.status == 422, refused
        else:
            raise AssertionError("a second history was cosigned")


def killed_and_started_again_it_stands_where_it_stood(ours, tree):
    from aics_witness.feeder import WitnessAhead

    older = signed(ours, tree)
    tree.append(b"one more")
    client(ours).submit(signed(ours, tree), tree.consistency_proof)
    ours.end(signal.SIGKILL)
    ours.start()
    try:
        client(ours).submit(older, tree.consistency_proof)
    except WitnessAhead as ahead:
        assert ahead.known_size == tree.size, ahead
    else:
        raise AssertionError("it went back")
    tree.append(b"and one")
    client(ours).submit(signed(ours, tree), tree.consistency_proof)


def what_it_has_seen_is_read_and_verified(ours, tree):
    from aics_tlog import parse_checkpoint, parse_note, parse_vkey, verify_checkpoint
    from aics_witness.protocol import origin_hash

    note = parse_note(urllib.request.urlopen(f"{ours.url}/{origin_hash(ORIGIN)}/checkpoint", timeout=5).read())
    assert parse_checkpoint(note.text).size == tree.size
    assert verify_checkpoint(note, ours.log_vkey, [parse_vkey(ours.vkey)], 1).ok


def our_log_is_cosigned_by_the_foreign_witness(ours, tree):
    environment = {**os.environ, "KOPURO_FOREIGN_WITNESS": sys.executable, "PYTHONPATH": sys.path[0]}
    ran = subprocess.run(
        ["cargo", "test", "--locked", "--test", "promises", "--", "--ignored", "--exact",
         "cosigners::a_foreign_witness_cosigns_our_log"],
        cwd=HERE.parent.parent, env=environment, capture_output=True, text=True,
    )
    assert ran.returncode == 0 and "1 passed" in ran.stdout, ran.stdout + ran.stderr


CHECKS = [
    a_foreign_log_is_cosigned,
    the_same_checkpoint_again_and_a_client_that_forgot,
    a_fork_is_refused,
    killed_and_started_again_it_stands_where_it_stood,
    what_it_has_seen_is_read_and_verified,
    our_log_is_cosigned_by_the_foreign_witness,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kopuro", default=os.environ.get("KOPURO_BIN", "target/release/kopuro"), help="the binary to test")
    parser.add_argument("--wheels", help="a folder to fetch the foreign packages into, and keep them")
    arguments = parser.parse_args()
    kopuro = Path(arguments.kopuro).resolve()
    if not kopuro.is_file():
        parser.error(f"no binary at {kopuro}: cargo build --release, or --kopuro FILE")
    with tempfile.TemporaryDirectory(prefix="kopuro-witness-") as work:
        wheels = Path(arguments.wheels or Path(work) / "wheels").resolve()
        wheels.mkdir(parents=True, exist_ok=True)
        fetch(wheels)
        from aics_tlog import MerkleTree

        folder = Path(work) / "ours"
        folder.mkdir()
        ours, tree, failed = Ours(kopuro, folder), MerkleTree(), 0
        ours.start()
        try:
            for check in CHECKS:
                failed += not passed(check, ours, tree)
        finally:
            ours.end(signal.SIGTERM)
    print(f"{len(CHECKS) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

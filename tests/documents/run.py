"""Runs the commands that stand in the documents, as a reader would, in the order in which they stand.

    python tests/documents/run.py --kopuro target/release/kopuro [--only operate.md]

Needs root (each document gets a network of its own, with the hosts that it names), and a Python with tests/interop/requirements.txt
installed. A block of shell that is neither run nor marked as not run, with a reason, is a failure. What a document needs beside what
it says stands in HTML comments before the block, or between blocks:

    <!-- not run: REASON -->          the next block is only for reading
    <!-- file: PATH -->               it is a file's text; a block of TOML that begins with "# some/path.toml" is one too
    <!-- needs: PROGRAM -->           it is run where there is such a program (--all: a failure where there is none)
    <!-- refused -->                  it has to fail
    <!-- stays until: TEXT -->        its last command goes on, to the document's end; it is up once it has said TEXT (none: at once)
    <!-- says: TEXT -->               it has to say TEXT
    <!-- on: MACHINE/FOLDER -->       where it is run, from here on; each machine has its own network. First: "desk"
    <!-- run: COMMANDS -->            run too, without being shown
    <!-- with: OLD => NEW -->         from here on NEW is run where the document has OLD; the latest goes first

Public keys that are cut short, NAME+…, are the last ones of that name that a command has printed.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "certs/README.md", ROOT / "deploy/compose/README.md"]
LIMIT = 120
# Two machines and the desk at which things are made. The addresses are for documentation (RFC 5737).
MACHINES = {"desk": "192.0.2.3", "a": "192.0.2.1", "b": "192.0.2.2"}
HOSTS = {"a": ["gw.civil.example", "civil"], "b": ["gw.tax.example", "tax"]}
KEY = re.compile(r"([\w.:/-]+)\+[0-9a-f]{8}\+[A-Za-z0-9+/]{40,}={0,2}")
SHORT_KEY = re.compile(r"([\w.:/-]+)\+(?:[0-9a-f]{4,8}(?:\+\w+)?)?…")
SHELL = ("sh", "bash", "console", "shell")


class Failure(Exception):
    pass


def parts(text):
    """Comments and blocks in their order: (line, "comment", text) and (line, "block", language, text)."""
    pattern = re.compile(r"^[ ]{0,3}<!--(?P<comment>.*?)-->|^(?P<fence>[ ]*`{3,})(?P<language>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ ]*$", re.S | re.M)
    for found in pattern.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["comment"] is not None:
            yield line, "comment", found["comment"].strip(), ""
        else:
            yield line, "block", found["language"].strip(), textwrap.dedent(found["body"])


class Document:
    def __init__(self, path, scratch, environment, every):
        self.all = every
        self.name, self.text, self.scratch, self.environment = path.name, path.read_text(), scratch, environment
        self.place, self.keys, self.instead, self.running = "desk", {}, [], []
        self.ran = self.skipped = 0
        self.output = scratch / "output"
        for machine in MACHINES:
            (scratch / machine).mkdir()

    def run(self):
        marks = {}
        line = 0
        try:
            for line, kind, what, body in parts(self.text):
                if kind == "comment":
                    self.comment(what, marks)
                else:
                    self.block(what, body, marks)
                    marks = {}
        except Failure as failure:
            raise Failure(f"{self.name}:{line}: {failure}") from None
        finally:
            self.stop()

    def comment(self, text, marks):
        mark, _, value = (part.strip() for part in text.partition(":"))
        if mark in ("not run", "needs", "file", "refused", "stays until", "says"):
            marks[mark] = value
        elif mark == "on":
            self.place = value
            (self.scratch / value).mkdir(parents=True, exist_ok=True)
        elif mark == "with":
            old, _, new = value.partition("=>")
            self.instead.insert(0, (old.strip(), new.strip()))
        elif mark == "run":
            self.shell(value, marks)
            marks.clear()

    def block(self, language, body, marks):
        path = re.match(r"# ([\w./-]*/[\w.-]+\.toml)\n", body) if language == "toml" else None
        if "not run" in marks:
            if not marks["not run"]:
                raise Failure("a block is not run, and no reason is given")
            self.skipped += language in SHELL
        elif "needs" in marks and not shutil.which(marks["needs"]):
            if self.all:
                raise Failure(f"there is no {marks['needs']} here")
            print(f"        {self.name}: a block is left out, there is no {marks['needs']} here", flush=True)
            self.skipped += language in SHELL
        elif "file" in marks or path:
            file = self.scratch / self.place / (marks.get("file") or path[1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.filled_in(body, shell=False))
        elif language in SHELL:
            self.shell(body, marks)
            self.ran += 1

    def filled_in(self, text, shell=True):
        for old, new in self.instead:
            text = text.replace(old, new)

        def key(found):
            if found[1] not in self.keys:
                raise Failure(f"no command has printed a key of {found[1]}")
            return self.keys[found[1]]
        text = SHORT_KEY.sub(key, text)
        if shell and "…" in text:
            raise Failure(f"something is left out, and nothing says what to run in its place:\n{text}")
        return text

    def shell(self, commands, marks):
        commands = self.filled_in(commands)
        # What stays is the last command: what follows the last line that is not a continuation.
        if "stays until" in marks:
            *first, last = re.split(r"(?<!\\)\n", commands.strip())
            if first:
                self.finish(commands="\n".join(first), marks={})
            self.start(last, marks["stays until"])
        else:
            self.finish(commands, marks)

    def command(self, commands):
        machine = self.place.split("/")[0]
        return ["nsenter", f"--net=/run/netns/{machine}", "bash", "-euo", "pipefail", "-c", commands]

    def finish(self, commands, marks):
        try:
            done = subprocess.run(self.command(commands), cwd=self.scratch / self.place, env=self.environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"not done within {LIMIT} s:\n{commands}\n{(late.stdout or b'').decode()[-3000:]}") from None
        self.heard(done.stdout)
        if (done.returncode != 0) != ("refused" in marks):
            raise Failure(f"exit {done.returncode}:\n{commands}\n{done.stdout[-4000:]}")
        if marks.get("says", "") not in done.stdout:
            raise Failure(f"does not say {marks['says']!r}:\n{commands}\n{done.stdout[-4000:]}")

    def start(self, command, sign):
        path = self.scratch / f"stays-{len(self.running)}.out"
        with open(path, "wb") as output:
            process = subprocess.Popen(self.command(f"exec {command}"), cwd=self.scratch / self.place, env=self.environment,
                                       stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self.running.append((command, process, path))
        deadline = time.monotonic() + LIMIT
        while sign not in path.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"has not said {sign!r} ({process.poll()}):\n{command}\n{path.read_text()[-4000:]}")
            time.sleep(0.05)
        self.heard(path.read_text())

    def heard(self, text):
        self.keys.update({found[1]: found[0] for found in KEY.finditer(text)})
        with open(self.output, "a", encoding="utf-8") as output:
            output.write(text)

    def stop(self):
        """Interrupts what stays up, as a reader would in the end."""
        for _, process, _ in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for _, process, _ in self.running:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def network(work):
    """The machines' networks, on one bridge, and their names for everybody."""
    def do(command):
        subprocess.run(command.split(), check=True)
    do("mount --make-rprivate /")
    Path("/run/netns").mkdir(exist_ok=True)
    do("mount -t tmpfs tmpfs /run/netns")
    do("ip link set lo up")
    do("ip link add lan type bridge")
    do("ip link set lan up")
    lines = ["127.0.0.1 localhost"]
    for machine, address in MACHINES.items():
        do(f"ip netns add {machine}")
        do(f"ip link add to-{machine} type veth peer name eth0 netns {machine}")
        do(f"ip link set to-{machine} master lan up")
        do(f"ip -n {machine} link set lo up")
        do(f"ip -n {machine} addr add {address}/24 dev eth0")
        do(f"ip -n {machine} link set eth0 up")
        lines += [f"{address} {name}" for name in HOSTS.get(machine, [])]
    hosts = work / "hosts"
    hosts.write_text("\n".join(lines) + "\n")
    do(f"mount --bind {hosts} /etc/hosts")


def main():
    # Run in the background, this would be ignored, and then also by what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kopuro", default="target/release/kopuro", help="the binary")
    parser.add_argument("--only", default="", help="only documents with this in their paths")
    parser.add_argument("--all", action="store_true", help="fail where a program is missing that a block needs")
    parser.add_argument("--keep", action="store_true", help="keep the folders of those that failed")
    arguments = parser.parse_args()
    binary = Path(arguments.kopuro).resolve()
    if not binary.is_file():
        parser.error(f"no binary at {binary}: cargo build --release, or --kopuro FILE")
    if os.geteuid() != 0:
        parser.error("needs root: every document gets a network of its own")

    failed = 0
    documents = [path for path in DOCUMENTS if arguments.only in str(path.relative_to(ROOT))]
    for path in documents:
        # A child for each: its namespaces go with it.
        process = os.fork()
        if process == 0:
            os._exit(in_its_own_world(path, binary, arguments.keep, arguments.all))
        failed += os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0
    print(f"{len(documents) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


def in_its_own_world(path, binary, keep, every):
    scratch = Path(tempfile.mkdtemp(prefix="kopuro-documents-"))
    start = time.monotonic()
    code = 0
    try:
        unshare()
        network(scratch)
        folder = scratch / "bin"
        folder.mkdir()
        (folder / "kopuro").symlink_to(binary)
        environment = {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(scratch), "LANG": "C.UTF-8",
                       "REPOSITORY": str(ROOT), "OUTPUT": str(scratch / "output")}
        document = Document(path, scratch, environment, every)
        document.run()
        print(f"passed  {path.relative_to(ROOT)}: {document.ran} blocks run, {document.skipped} not run ({time.monotonic() - start:.1f} s)", flush=True)
    except Failure as failure:
        print(f"FAILED  {failure}\n", flush=True)
        code = 1
    if code and keep:
        print(f"left for inspection: {scratch}", flush=True)
    else:
        subprocess.run(["umount", "/etc/hosts"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(scratch, ignore_errors=True)
    return code


def unshare():
    """A network and mounts of this process's own (os.unshare came with Python 3.12)."""
    import ctypes

    CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise Failure(f"unshare: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()

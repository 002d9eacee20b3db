"""Two ministries set up as operators do it: with the `kopuro` binary and text files, nothing else.

docs/operate.md walks through the same commands for two machines; here both nodes live in one folder, on loopback ports.
"""

import contextlib
import datetime
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

import echo_pb2
import echo_pb2_grpc
import grpc

HERE = Path(__file__).resolve().parent
PROVIDER_MEMBER = "KG/GOV/70000005"
CONSUMER_MEMBER = "KG/GOV/70000006"
PROVIDER = f"{PROVIDER_MEMBER}/echo"
CONSUMER = f"{CONSUMER_MEMBER}/tax-service"
# On the outbound list, without a grant; and on neither.
NOT_GRANTED = f"{CONSUMER_MEMBER}/statistics"
NOT_ALLOWED_OUT = f"{CONSUMER_MEMBER}/archive"
BASIS = "KG-LAW-127-12"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Process:
    """A process of ours, its output in a file."""

    def __init__(self, name, command, folder):
        self.name, self.command, self.folder = name, [str(part) for part in command], folder
        self.output = folder / f"{name}.out"
        self.running = None

    def start(self):
        with open(self.output, "ab") as output:
            self.running = subprocess.Popen(self.command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT)

    def stop(self, seconds=45):
        """SIGTERM; the exit code."""
        if self.running is None:
            return None
        self.running.send_signal(signal.SIGTERM)
        try:
            return self.running.wait(seconds)
        finally:
            self.kill()

    def kill(self):
        if self.running is not None and self.running.poll() is None:
            self.running.kill()
            self.running.wait()
        self.running = None

    def check_runs(self):
        if self.running.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.running.returncode}:\n{self.output.read_text()[-4000:]}")

    def resident(self):
        """Resident memory, bytes."""
        for line in Path(f"/proc/{self.running.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no VmRSS of {self.name}")


class Node(Process):
    def __init__(self, federation, name, member):
        self.home = federation.folder / name
        self.home.mkdir()
        self.member = member
        self.systems, self.nodes, self.admin = free_port(), free_port(), free_port()
        super().__init__(name, [federation.binary, "node", "--config", self.home / "node.toml"], federation.folder)

    def start(self):
        super().start()
        wait_until(self.is_ready, 30, f"the node {self.name} is ready")

    def is_ready(self):
        self.check_runs()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


class Federation:
    def __init__(self, binary, folder):
        self.binary, self.folder = Path(binary).resolve(), Path(folder).resolve()
        self.civil = Node(self, "civil", PROVIDER_MEMBER)
        self.tax = Node(self, "tax", CONSUMER_MEMBER)
        self.backend_port, self.observer_port = free_port(), free_port()
        self.backend = Process("backend", [
            sys.executable, HERE / "server.py", "--port", self.backend_port, "--observer-port", self.observer_port,
            "--certificate", "civil/echo.pem", "--key", "civil/echo.key", "--roots", "pki/root/ca.pem",
        ], self.folder)

    def kopuro(self, *arguments):
        """Runs the binary as a person would; its standard output."""
        done = subprocess.run(
            [self.binary, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode != 0:
            raise AssertionError(f"kopuro {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def write(self, path, text):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    # --- set-up, in the order of docs/operate.md ---

    def set_up(self):
        self.make_certificates()
        self.make_directory()
        self.configure_provider()
        self.configure_consumer()
        for node in (self.civil, self.tax):
            print(self.kopuro("node", "--config", f"{node.name}/node.toml", "--check").strip())

    def make_certificates(self):
        self.kopuro("pki", "init", "--out", "pki", "--federation", "KG",
                    "--member", PROVIDER_MEMBER, "--member", CONSUMER_MEMBER)
        for node in (self.civil, self.tax):
            self.issue(f"{node.member}/_node/main", f"{node.name}/node", "--dns", "localhost", "--ip", "127.0.0.1")
        self.issue(PROVIDER, "civil/echo")
        for system in (CONSUMER, NOT_GRANTED, NOT_ALLOWED_OUT):
            self.issue(system, f"tax/{system.rsplit('/', 1)[1]}")
        self.issue(f"{CONSUMER_MEMBER}/_auditor/board", "tax/auditor")

    def issue(self, identity, out, *names):
        member = "/".join(identity.split("/")[:3])
        self.kopuro("pki", "issue", "--ca", f"pki/members/{member}", "--identity", identity, *names, "--out", out)

    def make_directory(self):
        (self.folder / "directory").mkdir()
        self.describe("directory/echo.binpb")
        council = [self.keygen(name, f"council/{name}") for name in ("audit-chamber", "ombudsman", "ministry")]
        self.log_keys = log_keys = {node.name: self.keygen(f"{node.name}.example/log", f"{node.name}/log") for node in (self.civil, self.tax)}
        expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=30)
        self.write("directory/directory.toml", f"""\
federation = "KG"
version = 1
expires = {expires:%Y-%m-%dT%H:%M:%SZ}
threshold = 2
council = {json.dumps(council)}

[[members]]
id = "{PROVIDER_MEMBER}"
ky = "Жарандык абалдын актыларын каттоо"
ru = "Запись актов гражданского состояния"
en = "Civil Registry"

[[members]]
id = "{CONSUMER_MEMBER}"
ky = "Салык кызматы"
ru = "Налоговая служба"
en = "Tax Service"

[[nodes]]
member = "{PROVIDER_MEMBER}"
name = "main"
endpoint = "127.0.0.1:{self.civil.nodes}"
log_key = "{log_keys["civil"]}"

[[nodes]]
member = "{CONSUMER_MEMBER}"
name = "main"
endpoint = "127.0.0.1:{self.tax.nodes}"
log_key = "{log_keys["tax"]}"

{"".join(f'[[systems]]{chr(10)}id = "{system}"{chr(10)}{chr(10)}' for system in (PROVIDER, CONSUMER, NOT_GRANTED, NOT_ALLOWED_OUT))}\
[[services]]
name = "interop.v1.Echo"
provider = "{PROVIDER}"
descriptors = "echo.binpb"

[[auditors]]
identity = "{CONSUMER_MEMBER}/_auditor/board"

[[purposes]]
code = "{BASIS}"
law = "Law No. 127 of 19 July 2017 on electronic governance, article 12"
ky = "Мамлекеттик органдардын маалымат алмашуусу"
ru = "Обмен сведениями между государственными органами"
en = "Exchange of data between state bodies"
""")
        for signer in ("audit-chamber", "ombudsman"):
            self.kopuro("directory", "sign", "--source", "directory/directory.toml", "--key", f"council/{signer}.key",
                        "--out", "directory/directory.note")
        self.kopuro("directory", "verify", *(f"--council={key}" for key in council), "--threshold", "2",
                    "--descriptors", "directory", "directory/directory.note")
        self.council = council

    def describe(self, path):
        """The service's types, as protoc says them."""
        wellknown = Path(grpc_tools.__file__).parent / "_proto"
        arguments = ["protoc", f"-I{HERE}", f"-I{HERE.parents[1] / 'proto'}", f"-I{wellknown}", "--include_imports",
                     f"--descriptor_set_out={self.folder / path}", str(HERE / "echo.proto")]
        if protoc.main(arguments) != 0:
            raise AssertionError("protoc failed")

    def keygen(self, name, out):
        (self.folder / out).parent.mkdir(exist_ok=True)
        return self.kopuro("directory", "keygen", "--name", name, "--out", f"{out}.key").strip()

    def node_toml(self, node, more):
        lists = ", ".join(f'"../pki/{path}/ca.crl"' for path in
                          ("root", f"members/{PROVIDER_MEMBER}", f"members/{CONSUMER_MEMBER}"))
        self.write(f"{node.name}/node.toml", f"""\
[node]
member = "{node.member}"
name = "main"
data = "data"

[listen]
systems = "127.0.0.1:{node.systems}"
nodes = "127.0.0.1:{node.nodes}"
admin = "127.0.0.1:{node.admin}"

[tls]
certificate = "node.pem"
key = "node.key"
roots = ["../pki/root/ca.pem"]
crls = [{lists}]

[directory]
mirrors = ["../directory/directory.note"]
council = {json.dumps(self.council)}
threshold = 2
descriptors = "../directory"

[log]
key = "log.key"

{more}""")

    def configure_provider(self):
        self.node_toml(self.civil, f"""\
[backends.echo]
endpoint = "https://127.0.0.1:{self.backend_port}"
""")
        self.write("civil/grants/tax.toml", f"""\
[[grant]]
consumer = "{CONSUMER}"
provider = "echo"
service = "interop.v1.Echo"
methods = ["*"]
legal_basis = {{ code = "{BASIS}", text = "Law No. 127 of 19 July 2017 on electronic governance, article 12" }}
from = 2020-01-01
publication = "public"
""")

    def configure_consumer(self):
        self.node_toml(self.tax, "")
        self.write("tax/outbound.toml", f"""\
[[allow]]
system = "tax-service"
provider = "{PROVIDER_MEMBER}"
service = "interop.v1.Echo"
methods = ["*"]

[[allow]]
system = "statistics"
provider = "*"
service = "*"
methods = ["*"]
""")

    # --- running ---

    def start(self):
        self.start_backend()
        self.civil.start()
        self.tax.start()

    def start_backend(self):
        self.backend.start()
        wait_until(self.backend_answers, 30, "the back-end answers")

    def backend_answers(self):
        self.backend.check_runs()
        try:
            with socket.create_connection(("127.0.0.1", self.backend_port), timeout=1):
                return self.observe("") is not None
        except (OSError, grpc.RpcError):
            return False

    def kill(self):
        for process in (self.tax, self.civil, self.backend):
            process.kill()

    # --- clients ---

    def channel(self, system=CONSUMER, options=()):
        """A channel of a system of the tax service to its own node, as its developers open it."""
        name = system.rsplit("/", 1)[1]
        credentials = grpc.ssl_channel_credentials(
            root_certificates=(self.folder / "pki/root/ca.pem").read_bytes(),
            private_key=(self.folder / f"tax/{name}.key").read_bytes(),
            certificate_chain=(self.folder / f"tax/{name}.pem").read_bytes(),
        )
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20), *options]
        return grpc.secure_channel(f"localhost:{self.tax.systems}", credentials, options=options)

    def observe(self, label):
        """What the back-end has seen of a call."""
        with self.observer() as observer:
            return observer.Observe(echo_pb2.ObserveRequest(label=label), timeout=5)

    def peak(self):
        with self.observer() as observer:
            return observer.Peak(echo_pb2.PeakRequest(), timeout=5).calls

    @contextlib.contextmanager
    def observer(self):
        with grpc.insecure_channel(f"127.0.0.1:{self.observer_port}") as channel:
            yield echo_pb2_grpc.ObserverStub(channel)

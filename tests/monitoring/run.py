"""What operators watch a node with, and nobody here wrote: Prometheus scrapes two nodes and its alerts fire on faults that are really made;
a collector made of PyPI's opentelemetry-proto and grpcio takes their traces and metrics.

    python tests/monitoring/run.py --kopuro target/release/kopuro

Needs tests/interop/requirements.txt, tests/monitoring/requirements.txt and Debian's prometheus. The alerts are those of deploy/prometheus
in a copy in which every `for:` is two seconds, and Prometheus looks each second: nothing else of them is changed. Prints a line per check and, last,
`N passed, M failed`; exits 0 only if none failed.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "interop"))

from run import generate_stubs, passed  # noqa: E402

# An alert needs a scrape, an evaluation, two seconds of `for:`, and on a busy machine some patience.
FIRES_WITHIN = 30
TRACEPARENT = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
PERSONAL = ("inspector-7", "20101199012345", "case-4711", "asked-for")


class Collector:
    """OTLP over gRPC, by the stubs that the OpenTelemetry project publishes."""

    def __init__(self):
        import grpc
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

        self.lock, self.traces, self.metrics, self.headers = threading.Lock(), [], [], {}
        collector = self

        class Traces(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request, context):
                with collector.lock:
                    collector.traces.append(request)
                    collector.headers = dict(context.invocation_metadata())
                return trace_service_pb2.ExportTraceServiceResponse()

        class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
            def Export(self, request, context):
                with collector.lock:
                    collector.metrics.append(request)
                return metrics_service_pb2.ExportMetricsServiceResponse()

        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), self.server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def spans(self):
        """Each with the node that it is of."""
        with self.lock:
            return [(attributes(of_one.resource)["service.instance.id"], span)
                    for request in self.traces for of_one in request.resource_spans
                    for scope in of_one.scope_spans for span in scope.spans]

    def latest(self, node):
        """A node's metrics, by name."""
        with self.lock:
            return {metric.name: metric
                    for request in self.metrics for of_one in request.resource_metrics
                    if attributes(of_one.resource)["service.instance.id"] == node
                    for scope in of_one.scope_metrics for metric in scope.metrics}


def attributes(of):
    return {attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value")) for attribute in of.attributes}


class Prometheus:
    """Debian's, with our rules."""

    def __init__(self, folder, targets):
        from federation import Process, free_port

        self.port = free_port()
        rules = (ROOT / "deploy/prometheus/kopuro.rules.yml").read_text()
        rules, self.hurried = re.subn(r"(?m)^(\s+for:) .*$", r"\1 2s", rules)
        (folder / "rules.yml").write_text(rules)
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "kopuro", "static_configs": [{"targets": targets}]}],
        }))
        self.process = Process("prometheus", [
            "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", f"--web.listen-address=127.0.0.1:{self.port}",
        ], folder)

    def ask(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]

    def is_ready(self):
        self.process.check_runs()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def value(self, query):
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self, name, **labels):
        return any(alert["state"] == "firing" and alert["labels"]["alertname"] == name and labels.items() <= alert["labels"].items()
                   for alert in self.ask("alerts")["alerts"])


class World:
    def __init__(self, binary, folder):
        import echo_pb2_grpc
        from federation import Federation

        self.collector = Collector()
        self.federation = Federation(binary, folder)
        self.stub = echo_pb2_grpc.EchoStub
        self.prometheus = None

    def __enter__(self):
        from federation import wait_until

        federation = self.federation
        try:
            federation.set_up()
            federation.write("collector.headers", "Authorization: Bearer s3cret\n")
            (federation.folder / "collector.headers").chmod(0o600)
            for node in (federation.civil, federation.tax):
                self.edit(node, lambda text: text + f"""
[telemetry.otlp]
endpoint = "http://127.0.0.1:{self.collector.port}"
headers = {{ file = "../collector.headers" }}
delay = "100ms"
interval = "500ms"
""")
            federation.start()
            self.channel = federation.channel()
            self.echo = self.stub(self.channel)
            targets = [f"127.0.0.1:{node.admin}" for node in (federation.civil, federation.tax)]
            self.prometheus = Prometheus(federation.folder, targets)
            self.prometheus.process.start()
            wait_until(self.prometheus.is_ready, 30, "Prometheus is ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        self.collector.server.stop(None)
        if self.prometheus:
            self.prometheus.process.kill()
        self.federation.kill()

    def edit(self, node, change):
        path = node.home / "node.toml"
        path.write_text(change(path.read_text()))

    def call(self, **options):
        import echo_pb2

        return self.echo.Unary(echo_pb2.Request(label="watched", payload=b"asked-for"), timeout=20, **options)

    def fires(self, name, **labels):
        from federation import wait_until

        began = time.monotonic()
        wait_until(lambda: self.prometheus.firing(name, **labels), FIRES_WITHIN, f"{name} fires with {labels}")
        print(f"        {name} fires after {time.monotonic() - began:.1f} s", flush=True)

    def resolves(self, name, **labels):
        from federation import wait_until

        wait_until(lambda: not self.prometheus.firing(name, **labels), FIRES_WITHIN, f"{name} is resolved")


# --- checks ---


def traces_of_both_nodes_are_one(world):
    import echo_pb2
    from federation import CONSUMER, PROVIDER, wait_until
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    metadata = [TRACEPARENT, ("kopuro-user", PERSONAL[0]), ("kopuro-subject", PERSONAL[1]), ("kopuro-case", PERSONAL[2])]
    _, call = world.echo.Unary.with_call(
        echo_pb2.Request(label="traced", payload=PERSONAL[3].encode()), timeout=20, metadata=metadata)
    exchange = dict(call.initial_metadata())["kopuro-exchange"]
    trace_id, caller = (bytes.fromhex(part) for part in TRACEPARENT[1].split("-")[1:3])

    def four():
        found = [(node, span) for node, span in world.collector.spans() if span.trace_id == trace_id]
        return found if len(found) == 4 else None

    spans = wait_until(four, 20, "four spans")
    ours, theirs = f"{world.federation.tax.member}/_node/main", f"{world.federation.civil.member}/_node/main"
    parent = caller
    for node, kind in ((ours, Span.SPAN_KIND_SERVER), (ours, Span.SPAN_KIND_CLIENT), (theirs, Span.SPAN_KIND_SERVER), (theirs, Span.SPAN_KIND_CLIENT)):
        (span,) = [span for of, span in spans if of == node and span.kind == kind]
        assert span.parent_span_id == parent, span
        parent = span.span_id
        told = attributes(span)
        assert span.name == told["rpc.method"] == "interop.v1.Echo/Unary", span
        assert (told["rpc.system.name"], told["rpc.response.status_code"]) == ("grpc", "OK"), span
        assert (told["kopuro.exchange_id"], told["kopuro.consumer"], told["kopuro.provider"]) == (exchange, CONSUMER, PROVIDER), span
    heard = {pair.name: pair.value.decode() for pair in world.federation.observe("traced").metadata if pair.name == "traceparent"}
    assert heard["traceparent"] == f"00-{trace_id.hex()}-{parent.hex()}-01", heard
    assert world.collector.headers["authorization"] == "Bearer s3cret"
    with world.collector.lock:
        sent = b"".join(request.SerializeToString() for request in world.collector.traces)
    for personal in PERSONAL:
        assert personal.encode() not in sent, personal


def metrics_arrive_at_the_collector(world):
    from federation import wait_until

    node = f"{world.federation.tax.member}/_node/main"

    def exchanges():
        metric = world.collector.latest(node).get("kopuro_exchanges_total")
        points = metric.sum.data_points if metric else []
        return sum(point.as_double for point in points if attributes(point)["outcome"] == "ok") or None

    wait_until(exchanges, 20, "exchanges are counted")
    latest = world.collector.latest(node)
    durable = [point for point in latest["kopuro_stage_seconds"].histogram.data_points if attributes(point)["stage"] == "durable"]
    assert durable[0].count == sum(durable[0].bucket_counts) > 0, durable
    assert latest["kopuro_stage_seconds"].unit == "s" and latest["kopuro_log_free_bytes"].unit == "By"


def doctor_reaches_the_collector(world):
    said = subprocess.run([world.federation.binary, "doctor", "--config", "tax/node.toml"], cwd=world.federation.folder,
                          capture_output=True, text=True, timeout=60, check=False).stdout
    assert f"good  collector: http://127.0.0.1:{world.collector.port} answers in" in said, said


def prometheus_scrapes_both_nodes(world):
    from federation import wait_until

    prometheus = world.prometheus
    assert prometheus.hurried > 10
    groups = prometheus.ask("rules")["groups"]
    assert sum(len(group["rules"]) for group in groups) > 20 and all(rule["health"] != "err" for group in groups for rule in group["rules"])
    world.call()

    def up():
        targets = prometheus.ask("targets")["activeTargets"]
        return len(targets) == 2 and all(target["health"] == "up" for target in targets)

    wait_until(up, 20, "both are up")
    for query in ('sum(kopuro_exchanges_total{outcome="ok"})', "min(kopuro_ready)", "min(kopuro_log_bytes)", "min(kopuro_peer_reachable)",
                  'min(kopuro_expiry_timestamp_seconds{what="crl"} - time())', 'sum(kopuro_stage_seconds_count{stage="accept"})'):
        wait_until(lambda query=query: (prometheus.value(query) or 0) > 0, 20, query)
    for name in ("KopuroNodeDown", "KopuroNotReady", "KopuroLogRefusing", "KopuroPeerUnreachable", "KopuroExpiresTomorrow"):
        assert not prometheus.firing(name), name


def a_node_that_dies_is_told_by_itself_and_by_its_peer(world):
    civil, tax = world.federation.civil, world.federation.tax
    down = {"instance": f"127.0.0.1:{civil.admin}"}
    unreachable = {"node": f"{tax.member}/_node/main", "peer": f"{civil.member}/_node/main"}
    civil.kill()
    world.fires("KopuroNodeDown", **down)
    world.fires("KopuroPeerUnreachable", **unreachable)
    civil.start()
    world.resolves("KopuroNodeDown", **down)
    # Nobody has called since: the node finds out by itself.
    world.resolves("KopuroPeerUnreachable", **unreachable)
    world.call()


def a_certificate_that_ends_is_told(world):
    tax = world.federation.tax
    ends = {"node": f"{tax.member}/_node/main", "what": "certificate"}
    names = ("--dns", "localhost", "--ip", "127.0.0.1", "--force")
    world.federation.issue(f"{tax.member}/_node/main", "tax/node", *names, "--days", "1")
    world.fires("KopuroExpiresTomorrow", **ends)
    world.federation.issue(f"{tax.member}/_node/main", "tax/node", *names)
    world.resolves("KopuroExpiresTomorrow", **ends)
    world.call()


def a_log_without_space_is_told(world):
    import grpc
    from federation import wait_until

    tax = world.federation.tax
    refusing, not_ready = {"instance": f"127.0.0.1:{tax.admin}"}, {"node": f"{tax.member}/_node/main"}
    good = (tax.home / "node.toml").read_text()
    # More than any disk has: what a full one looks like, without filling that of whoever runs this.
    tax.stop()
    world.edit(tax, lambda text: text.replace("[log]\n", '[log]\nwarn_free = "4000TiB"\nrefuse_free = "4000TiB"\n'))
    super(type(tax), tax).start()
    world.fires("KopuroLogRefusing", **refusing)
    world.fires("KopuroNotReady", **not_ready)
    try:
        world.call(wait_for_ready=True)
        raise AssertionError("a call without a log")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE and "log" in error.details(), error
    tax.stop()
    (tax.home / "node.toml").write_text(good)
    tax.start()
    world.resolves("KopuroLogRefusing", **refusing)
    world.resolves("KopuroNotReady", **not_ready)
    wait_until(lambda: world.call(wait_for_ready=True), 20, "calls pass again")


CHECKS = [
    traces_of_both_nodes_are_one,
    metrics_arrive_at_the_collector,
    doctor_reaches_the_collector,
    prometheus_scrapes_both_nodes,
    a_node_that_dies_is_told_by_itself_and_by_its_peer,
    a_certificate_that_ends_is_told,
    a_log_without_space_is_told,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kopuro", default=os.environ.get("KOPURO_BIN", "target/release/kopuro"), help="the binary to test")
    arguments = parser.parse_args()
    if not Path(arguments.kopuro).is_file():
        parser.error(f"no binary at {arguments.kopuro}: cargo build --release, or --kopuro FILE")
    if shutil.which("prometheus") is None:
        parser.error("no prometheus: apt-get install prometheus")
    work = Path(tempfile.mkdtemp(prefix="kopuro-monitoring-")).resolve()
    (work / "stubs").mkdir()
    generate_stubs(work / "stubs")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with World(arguments.kopuro, work) as world:
        failed = sum(not passed(check, world) for check in CHECKS)
    if failed:
        print(f"left for inspection: {work}")
    else:
        shutil.rmtree(work)
    print(f"{len(CHECKS) - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

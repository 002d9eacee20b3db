"""What a Python client of one ministry may expect of calls to another ministry's Python back-end, through two nodes.

Each check is a function of the world; its name says what holds. Checks may come in any order; those in AFTERWARDS stop
the nodes and read their logs.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from pathlib import Path

import grpc
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

import echo_pb2
import echo_pb2_grpc
import federation
import web
from federation import BASIS, CONSUMER, CONSUMER_MEMBER, NOT_ALLOWED_OUT, NOT_GRANTED, PROVIDER, PROVIDER_MEMBER, Federation, wait_until

MIB = 1 << 20
INITIAL = {"x-initial": "from the server", "x-initial-bin": b"\x00\x01\xfe\xff"}
TRAILING = {"x-trailing": "at the end", "x-trailing-bin": bytes(range(256))}
GOES_ON = 20  # seconds that an ordinary call may take on a busy machine


class World:
    """The federation, one client that all checks share, and what was called."""

    def __init__(self, binary, folder, connect=None):
        self.federation = Federation(binary, folder)
        # Where clients from npm are installed.
        self.connect = connect and Path(connect).resolve()
        # Exchange id -> gRPC status, as this client saw it.
        self.seen = {}

    def __enter__(self):
        try:
            self.federation.set_up()
            self.federation.start()
            self.channel = self.federation.channel()
            self.echo = echo_pb2_grpc.EchoStub(self.channel)
        except BaseException:
            self.federation.kill()
            raise
        return self

    def __exit__(self, *error):
        self.channel.close()
        self.federation.kill()

    def observe(self, label):
        return self.federation.observe(label)

    def ended(self, call):
        """Notes how a call ended: to be found in the logs. Gives the call back."""
        code = call.code()
        for metadata in (call.initial_metadata(), call.trailing_metadata()):
            exchange = dict(metadata or ()).get("kopuro-exchange")
            if exchange is not None:
                self.seen[exchange] = code.value[0]
                assert uuid.UUID(exchange).version == 7
        return call

    @contextlib.contextmanager
    def refused(self, code):
        """The block ends in a gRPC error with this code; gives a place where the error will be."""
        told = []
        try:
            yield told
        except grpc.RpcError as error:
            told.append(self.ended(error))
        assert told, f"expected {code}, and the call was OK"
        assert told[0].code() == code, f"expected {code}, got {told[0].code()}: {told[0].details()}"

    def unary(self, label, payload=b"hello", stub=None, timeout=GOES_ON, **options):
        """A unary call that is expected to be OK: its reply and the call."""
        request = echo_pb2.Request(label=label, payload=payload)
        reply, call = (stub or self.echo).Unary.with_call(request, timeout=timeout, **options)
        self.ended(call)
        assert reply.payload == payload
        return reply, call


def script(label, payload=b"", **what):
    return echo_pb2.Request(label=label, payload=payload, script=echo_pb2.Script(**what))


def error_info(error):
    """google.rpc.ErrorInfo of a status, unpacked by grpcio-status as any client would."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no rich status: {error.details()}"
    assert status.code == error.code().value[0]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return info
    raise AssertionError("no ErrorInfo")


def assert_gateway_refusal(error, reason, side):
    info = error_info(error)
    assert (info.domain, info.reason, info.metadata["side"]) == ("kopuro", reason, side), info


def assert_has(metadata, expected):
    found = dict(metadata)
    for name, value in expected.items():
        assert found.get(name) == value, f"{name}: {found.get(name)!r}"


# --- the four kinds ---


def unary_call(world):
    world.unary("unary")


def client_stream(world):
    parts = [bytes([n]) * 1000 for n in range(100)]
    requests = (echo_pb2.Request(label="collect", payload=part) for part in parts)
    reply, call = world.echo.Collect.with_call(requests, timeout=GOES_ON)
    world.ended(call)
    assert reply.number == 100 and reply.payload == b"".join(parts)


def client_stream_without_a_message(world):
    reply, call = world.echo.Collect.with_call(iter(()), timeout=GOES_ON)
    world.ended(call)
    assert reply.number == 0 and reply.payload == b""


def server_stream(world):
    call = world.echo.Expand(script("expand", b"x" * 100, replies=1000), timeout=GOES_ON)
    numbers = [reply.number for reply in call]
    world.ended(call)
    assert numbers == list(range(1000))


def server_stream_without_a_message(world):
    call = world.echo.Expand(script("expand-none", replies=0), timeout=GOES_ON)
    assert list(call) == []
    world.ended(call)


def bidirectional_stream(world):
    """Each message is answered before the next is sent: neither side waits for the other's end."""
    answered = threading.Semaphore(1)

    def requests():
        for number in range(50):
            assert answered.acquire(timeout=GOES_ON)
            yield echo_pb2.Request(label="chat", payload=str(number).encode())

    call = world.echo.Chat(requests(), timeout=GOES_ON)
    received = []
    for reply in call:
        received.append(reply.payload)
        answered.release()
    world.ended(call)
    assert received == [str(number).encode() for number in range(50)]


# --- metadata, trailers, errors ---


def metadata_both_ways(world):
    sent = {"x-request": "a value, with=signs; and more", "x-request-bin": bytes(range(255, -1, -1)), "authorization": "Bearer t"}
    _, call = world.unary("metadata", metadata=tuple(sent.items()))
    assert_has(call.initial_metadata(), INITIAL)
    assert_has(call.trailing_metadata(), TRAILING)
    arrived = {pair.name: pair.value for pair in world.observe("metadata").metadata}
    for name, value in sent.items():
        assert arrived[name] == (value if isinstance(value, bytes) else value.encode()), name


def repeated_metadata_keeps_its_values_in_order(world):
    world.unary("repeated", metadata=(("x-many", "1"), ("x-many", "2"), ("x-many-bin", b"\xff"), ("x-many-bin", b"\x00")))
    arrived = [(pair.name, pair.value) for pair in world.observe("repeated").metadata if pair.name.startswith("x-many")]
    texts = [value for name, value in arrived if name == "x-many"]
    binary = [value for name, value in arrived if name == "x-many-bin"]
    assert b",".join(texts).replace(b" ", b"") == b"1,2" and b"".join(binary) == b"\xff\x00", arrived


def metadata_of_streams(world):
    for label, call in {
        "metadata-expand": world.echo.Expand(script("metadata-expand", replies=3), timeout=GOES_ON),
        "metadata-chat": world.echo.Chat(iter([echo_pb2.Request(label="metadata-chat")] * 3), timeout=GOES_ON),
    }.items():
        assert len(list(call)) == 3, label
        world.ended(call)
        assert_has(call.initial_metadata(), INITIAL)
        assert_has(call.trailing_metadata(), TRAILING)


def the_back_end_learns_who_asks_and_on_which_basis(world):
    _, call = world.unary("who", metadata=(("kopuro-purpose", BASIS), ("kopuro-case", "A-17")))
    seen = world.observe("who")
    arrived = {pair.name: pair.value.decode() for pair in seen.metadata if not pair.name.endswith("-bin")}
    assert arrived["kopuro-consumer"] == CONSUMER
    assert arrived["kopuro-purpose"] == BASIS
    assert arrived["kopuro-exchange"] == dict(call.initial_metadata())["kopuro-exchange"]
    assert f"kopuro://{PROVIDER_MEMBER}/_node/main" in list(seen.peer_names), list(seen.peer_names)


def rich_error_details(world):
    with world.refused(grpc.StatusCode.INVALID_ARGUMENT) as told:
        world.echo.Unary(script("rich", status=grpc.StatusCode.INVALID_ARGUMENT.value[0]), timeout=GOES_ON)
    error = told[0]
    assert error.details() == "не тот ПИН: 100 %"
    assert_has(error.trailing_metadata(), TRAILING)
    status = rpc_status.from_call(error)
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert bad.field_violations[0].field == "pin" and bad.field_violations[0].description == "14 сан болушу керек"
    info = error_info(error)
    assert (info.domain, info.reason) == ("civil.example", "PIN_INVALID")


def the_server_ends_its_stream_with_an_error(world):
    call = world.echo.Expand(script("abort", b"x", replies=10, status=grpc.StatusCode.ABORTED.value[0], status_after=3), timeout=GOES_ON)
    received = []
    with world.refused(grpc.StatusCode.ABORTED) as told:
        for reply in call:
            received.append(reply.number)
    assert received == [0, 1, 2]
    assert_has(told[0].trailing_metadata(), TRAILING)
    assert error_info(told[0]).reason == "PIN_INVALID"


def the_server_ends_a_conversation_with_an_error(world):
    """While the client's side of the stream is still open."""
    hold = threading.Event()

    def requests():
        for _ in range(3):
            yield script("abort-chat", b"x", status=grpc.StatusCode.FAILED_PRECONDITION.value[0], status_after=2)
        hold.wait(GOES_ON)

    call = world.echo.Chat(requests(), timeout=GOES_ON)
    received = 0
    try:
        with world.refused(grpc.StatusCode.FAILED_PRECONDITION):
            for _ in call:
                received += 1
    finally:
        hold.set()
    assert received == 2


def the_server_answers_before_the_client_has_sent_all(world):
    """An upload is refused half way: the client gets the reason, not a broken stream."""
    def requests():
        for _ in range(2000):
            yield script("early", b"x" * 10_000, status=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], status_after=5)

    with world.refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as told:
        world.echo.Collect(requests(), timeout=GOES_ON)
    assert error_info(told[0]).reason == "PIN_INVALID"


# --- deadlines and cancellation ---

# gRPC's C core counts in whole milliseconds and rounds what is left up.
ROUNDED = 0.002


def deadline(world):
    start = time.monotonic()
    with world.refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        world.echo.Unary(script("deadline", delay_ms=20_000), timeout=0.7)
    assert time.monotonic() - start < 3
    seen = world.observe("deadline")
    assert seen.started and 0 < seen.time_remaining < 0.7 + ROUNDED, f"the server saw {seen.time_remaining} s of the 0.7 s"
    wait_until(lambda: world.observe("deadline").cancelled, 2, "the server's call is cancelled")


def deadline_of_a_stream(world):
    call = world.echo.Expand(script("deadline-stream", replies=1, delay_ms=20_000), timeout=0.7)
    with world.refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        list(call)
    assert 0 < world.observe("deadline-stream").time_remaining < 0.7 + ROUNDED
    wait_until(lambda: world.observe("deadline-stream").cancelled, 2, "the server's stream is cancelled")


def the_client_cancels_a_call(world):
    call = world.echo.Unary.future(script("cancel", delay_ms=20_000), timeout=60)
    wait_until(lambda: world.observe("cancel").started, GOES_ON, "the call is at the server")
    call.cancel()
    wait_until(lambda: world.observe("cancel").cancelled, 2, "the server's call is cancelled")


def the_client_cancels_a_stream(world):
    call = world.echo.Expand(script("cancel-stream", b"x" * 10_000, replies=1_000_000), timeout=60)
    for _ in range(10):
        next(call)
    call.cancel()
    wait_until(lambda: world.observe("cancel-stream").cancelled, 2, "the server's stream is cancelled")
    world.ended(call)


def the_client_cancels_a_conversation(world):
    hold = threading.Event()

    def requests():
        yield script("cancel-chat", b"x", delay_ms=20_000)
        hold.wait(GOES_ON)

    call = world.echo.Chat(requests(), timeout=60)
    try:
        wait_until(lambda: world.observe("cancel-chat").started, GOES_ON, "the call is at the server")
        call.cancel()
        wait_until(lambda: world.observe("cancel-chat").cancelled, 2, "the server's stream is cancelled")
    finally:
        hold.set()
    world.ended(call)


# --- sizes, compression, many calls, slow readers ---


def three_mebibytes_each_way(world):
    payload = bytes(range(256)) * (3 * MIB // 256)
    world.unary("3MiB", payload)
    requests = iter([echo_pb2.Request(label="3MiB-collect", payload=payload)])
    reply, call = world.echo.Collect.with_call(requests, timeout=GOES_ON)
    world.ended(call)
    assert reply.payload == payload
    call = world.echo.Chat(iter([echo_pb2.Request(label="3MiB-chat", payload=payload)] * 5), timeout=GOES_ON)
    assert [reply.payload == payload for reply in call] == [True] * 5
    world.ended(call)


def compressed_messages(world):
    """Compressed messages pass both ways; one that is over the limit once it is unpacked does not."""
    payload = b"\0" * (3 * MIB)
    request = script("gzip", payload, gzip=True)
    reply, call = world.echo.Unary.with_call(request, compression=grpc.Compression.Gzip, timeout=GOES_ON)
    world.ended(call)
    assert reply.payload == payload
    call = world.echo.Expand(script("gzip-stream", payload, gzip=True, replies=2), compression=grpc.Compression.Gzip, timeout=GOES_ON)
    assert [reply.payload == payload for reply in call] == [True, True]
    world.ended(call)
    with world.refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as told:
        bomb = script("gzip-bomb", b"\0" * (6 * MIB), gzip=True)
        world.echo.Unary(bomb, compression=grpc.Compression.Gzip, timeout=GOES_ON)
    assert_gateway_refusal(told[0], "MESSAGE_TOO_LARGE", "consumer")


def a_request_over_the_limit(world):
    payload = b"x" * (4 * MIB + 1)
    with world.refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as told:
        world.echo.Unary(echo_pb2.Request(label="too-large", payload=payload), timeout=GOES_ON)
    assert_gateway_refusal(told[0], "MESSAGE_TOO_LARGE", "consumer")
    assert not world.observe("too-large").started


def a_streamed_request_over_the_limit(world):
    requests = iter([echo_pb2.Request(label="too-large-stream", payload=b"x" * size) for size in (10, 4 * MIB + 1, 10)])
    with world.refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as told:
        world.echo.Collect(requests, timeout=GOES_ON)
    assert_gateway_refusal(told[0], "MESSAGE_TOO_LARGE", "consumer")


def an_answer_over_the_limit(world):
    with world.refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as told:
        world.echo.Unary(script("large-answer", reply_size=4 * MIB + 1), timeout=GOES_ON)
    assert_gateway_refusal(told[0], "MESSAGE_TOO_LARGE", "provider")


def a_streamed_answer_over_the_limit(world):
    call = world.echo.Expand(script("large-answer-stream", reply_size=4 * MIB + 1, replies=3), timeout=GOES_ON)
    with world.refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as told:
        list(call)
    assert_gateway_refusal(told[0], "MESSAGE_TOO_LARGE", "provider")


def a_thousand_calls_at_once_on_one_channel(world):
    world.federation.peak()
    calls = [
        (number, world.echo.Unary.future(script(f"many-{number}", str(number).encode() * 100, delay_ms=300), timeout=60))
        for number in range(1000)
    ]
    for number, call in calls:
        assert call.result().payload == str(number).encode() * 100
        world.ended(call)
    peak = world.federation.peak()
    assert peak >= 100, f"only {peak} calls ran at once at the back-end"


def slow_readers_of_tiny_messages(world):
    """Several streams of tiny messages whose readers stop: the writers stop too, the nodes' memory stays flat, other
    calls on the same connections go on, and the streams live on when they are read again."""
    nodes = (world.federation.civil, world.federation.tax)
    before = [node.resident() for node in nodes]
    # A fixed window: else this client takes in megabytes of what it has not been asked to read.
    with world.federation.channel(options=[("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]) as channel:
        echo = echo_pb2_grpc.EchoStub(channel)
        labels = [f"slow-{number}" for number in range(4)]
        streams = [echo.Expand(script(label, b"tiny", replies=10_000_000), timeout=300) for label in labels]
        for stream in streams:
            next(stream)
        sent = steady_counts(world, labels)
        assert max(sent) < 100_000, f"the server went on sending: {sent}"
        for number in range(20):
            world.unary(f"beside-{number}")
            world.unary(f"beside-on-the-same-channel-{number}", stub=echo)
        time.sleep(2)
        assert [world.observe(label).sent for label in labels] == sent, "the server went on sending to readers that stalled"
        grown = [node.resident() - resident for node, resident in zip(nodes, before)]
        assert max(grown) < 64 * MIB, f"the nodes grew by {grown} bytes"
        for stream, label, count in zip(streams, labels, sent):
            for number in range(1, count + 1000):
                assert next(stream).number == number
            assert world.observe(label).sent > count
        for stream in streams:
            stream.cancel()
        for label in labels:
            wait_until(lambda: world.observe(label).cancelled, 5, f"the server's stream {label} is cancelled")
        for stream in streams:
            world.ended(stream)
    print(f"        stalled after {sent} messages; the nodes grew by {[f'{bytes / MIB:.1f} MiB' for bytes in grown]}")


def steady_counts(world, labels):
    """How much has been sent of each stream once no count has moved for a second."""
    deadline = time.monotonic() + 60
    last, since = None, 0
    while time.monotonic() < deadline:
        sent = [world.observe(label).sent for label in labels]
        if sent != last:
            last, since = sent, time.monotonic()
        elif time.monotonic() - since > 1:
            return sent
        time.sleep(0.1)
    raise AssertionError(f"the server went on sending for a minute: {last}")


# --- refusals ---


def forged_gateway_metadata(world):
    for name in ("kopuro-exchange", "kopuro-consumer", "kopuro-refused", "kopuro-made-up"):
        value = str(uuid.uuid4()) if name == "kopuro-exchange" else CONSUMER
        with world.refused(grpc.StatusCode.INVALID_ARGUMENT) as told:
            world.echo.Unary(echo_pb2.Request(label="forged"), metadata=((name, value),), timeout=GOES_ON)
        assert_gateway_refusal(told[0], "RESERVED_METADATA", "consumer")
    assert not world.observe("forged").started


def a_call_without_a_grant(world):
    with world.federation.channel(NOT_GRANTED) as channel, world.refused(grpc.StatusCode.PERMISSION_DENIED) as told:
        echo_pb2_grpc.EchoStub(channel).Unary(echo_pb2.Request(label="no-grant"), timeout=GOES_ON)
    assert_gateway_refusal(told[0], "GRANT_MISSING", "provider")
    assert NOT_GRANTED in told[0].details()
    assert not world.observe("no-grant").started


def a_stream_without_a_grant(world):
    """A streaming method is refused as a unary one is."""
    with world.federation.channel(NOT_GRANTED) as channel:
        with world.refused(grpc.StatusCode.PERMISSION_DENIED) as told:
            requests = iter([echo_pb2.Request(label="no-grant-chat")] * 3)
            list(echo_pb2_grpc.EchoStub(channel).Chat(requests, timeout=GOES_ON))
    assert_gateway_refusal(told[0], "GRANT_MISSING", "provider")


def a_system_that_its_own_ministry_does_not_let_out(world):
    with world.federation.channel(NOT_ALLOWED_OUT) as channel, world.refused(grpc.StatusCode.PERMISSION_DENIED) as told:
        echo_pb2_grpc.EchoStub(channel).Unary(echo_pb2.Request(label="not-out"), timeout=GOES_ON)
    assert_gateway_refusal(told[0], "OUTBOUND_NOT_ALLOWED", "consumer")


def another_purpose_than_the_granted(world):
    with world.refused(grpc.StatusCode.FAILED_PRECONDITION) as told:
        world.echo.Unary(echo_pb2.Request(label="purpose"), metadata=(("kopuro-purpose", "CURIOSITY"),), timeout=GOES_ON)
    assert_gateway_refusal(told[0], "PURPOSE_NOT_ALLOWED", "provider")


def an_unknown_service_and_an_unknown_method(world):
    for path, reason in (("/no.such.v1.Service/Get", "SERVICE_UNKNOWN"), ("/interop.v1.Echo/Get", "METHOD_UNKNOWN")):
        call = world.channel.unary_unary(path)
        with world.refused(grpc.StatusCode.UNIMPLEMENTED) as told:
            call(b"", timeout=GOES_ON)
        assert_gateway_refusal(told[0], reason, "consumer")


def a_named_provider(world):
    world.unary("provider", metadata=(("kopuro-provider", PROVIDER),))
    with world.refused(grpc.StatusCode.NOT_FOUND) as told:
        world.echo.Unary(echo_pb2.Request(), metadata=(("kopuro-provider", f"{PROVIDER_MEMBER}/other"),), timeout=GOES_ON)
    assert_gateway_refusal(told[0], "PROVIDER_UNKNOWN", "consumer")


def no_certificate_no_call(world):
    roots = (world.federation.folder / "pki/root/ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(root_certificates=roots)
    with grpc.secure_channel(f"localhost:{world.federation.tax.systems}", credentials) as channel:
        with world.refused(grpc.StatusCode.UNAVAILABLE):
            echo_pb2_grpc.EchoStub(channel).Unary(echo_pb2.Request(label="nobody"), timeout=5)
    assert not world.observe("nobody").started


# --- what a node offers itself ---


def reflection_shows_what_the_caller_may_call(world):
    database = ProtoReflectionDescriptorDatabase(world.channel)
    assert "interop.v1.Echo" in database.get_services()
    service = descriptor_pool.DescriptorPool(database).FindServiceByName("interop.v1.Echo")
    assert [method.name for method in service.methods] == ["Unary", "Collect", "Expand", "Chat"]
    with world.federation.channel(NOT_ALLOWED_OUT) as channel:
        assert "interop.v1.Echo" not in ProtoReflectionDescriptorDatabase(channel).get_services()


def standard_health_check(world):
    check = world.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=GOES_ON) == b"\x08\x01", "SERVING"


def metrics_for_prometheus(world):
    with urllib.request.urlopen(f"http://127.0.0.1:{world.federation.tax.admin}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert "kopuro_" in text


def kopuro_call_by_hand(world):
    """`kopuro call` and this client get the same answer."""
    told = world.federation.kopuro(
        "call", "interop.v1.Echo/Unary", "-d", '{"label":"by-hand","payload":"aGVsbG8="}', "--node",
        f"https://localhost:{world.federation.tax.systems}", "--cert", "tax/tax-service.pem", "--key",
        "tax/tax-service.key", "--ca", "pki/root/ca.pem",
    )
    assert json.loads(told)["payload"] == "aGVsbG8="
    assert world.observe("by-hand").ended


def an_auditor_asks_the_running_node(world):
    """With `kopuro log`: finds one exchange, verifies the whole log, and leaves a trace of having looked."""
    _, call = world.unary("audited")
    exchange = dict(call.initial_metadata())["kopuro-exchange"]
    node = ("--node", f"https://localhost:{world.federation.tax.systems}", "--cert", "tax/auditor.pem", "--key",
            "tax/auditor.key", "--ca", "pki/root/ca.pem")

    def found():
        told = world.federation.kopuro("log", "query", *node, "--consumer", CONSUMER, "-n", "20", "--format", "jsonl")
        return any(json.loads(line)["exchange_id"] == exchange for line in told.splitlines())

    wait_until(found, 10, "the exchange is in the index")
    assert exchange in world.federation.kopuro("log", "show", exchange, *node)
    world.federation.kopuro("log", "verify", *node, "--vkey", world.federation.log_keys["tax"])
    looks = world.federation.kopuro("log", "query", *node, "--audits", "--format", "jsonl")
    assert f"{CONSUMER_MEMBER}/_auditor/board" in looks


# --- when something is down ---


def the_back_end_is_down(world):
    world.federation.backend.stop()
    try:
        start = time.monotonic()
        with world.refused(grpc.StatusCode.UNAVAILABLE) as told:
            world.echo.Unary(echo_pb2.Request(label="backend-down"), timeout=GOES_ON)
        assert time.monotonic() - start < 3
        assert_gateway_refusal(told[0], "BACKEND_UNREACHABLE", "provider")
        assert PROVIDER in told[0].details()
    finally:
        world.federation.start_backend()
    wait_until(lambda: succeeds(world, "backend-back"), 10, "calls pass again")


def the_other_node_is_down(world):
    assert world.federation.civil.stop() == 0, "SIGTERM: the node exits 0"
    try:
        start = time.monotonic()
        with world.refused(grpc.StatusCode.UNAVAILABLE) as told:
            world.echo.Unary(echo_pb2.Request(label="node-down"), timeout=GOES_ON)
        assert time.monotonic() - start < 3
        assert_gateway_refusal(told[0], "PEER_UNREACHABLE", "consumer")
        assert PROVIDER_MEMBER in told[0].details(), told[0].details()
    finally:
        world.federation.civil.start()
    wait_until(lambda: succeeds(world, "node-back"), 10, "calls pass again")


def succeeds(world, label):
    try:
        world.unary(label)
        return True
    except grpc.RpcError as error:
        world.ended(error)
        return False


# --- the end, and the logs ---


def sigterm_lets_a_running_call_end_and_exits_0(world):
    running = world.echo.Unary.future(script("drained", b"still here", delay_ms=1500), timeout=GOES_ON)
    wait_until(lambda: world.observe("drained").started, GOES_ON, "the call is at the server")
    codes = []
    stopping = [threading.Thread(target=lambda node=node: codes.append(node.stop())) for node in (world.federation.tax, world.federation.civil)]
    for thread in stopping:
        thread.start()
    assert running.result().payload == b"still here"
    world.ended(running)
    for thread in stopping:
        thread.join()
    assert codes == [0, 0], codes


def both_logs_verify(world):
    for node in ("civil", "tax"):
        told = world.federation.kopuro("log", "verify", "--data", f"{node}/data", "--vkey", world.federation.log_keys[node])
        print(f"        {node}: {told.splitlines()[0]}")


def an_opening_holds_by_the_documented_procedure(world):
    """docs/opening.md, as it stands there, by whoever has Python."""
    folder = world.federation.folder
    document = (Path(__file__).parents[2] / "docs" / "opening.md").read_text()
    procedure = document.split("```python\n")[1].split("```")[0]
    assert len(procedure.splitlines()) <= 60
    (folder / "check_opening.py").write_text(procedure)
    vkey = world.federation.log_keys["civil"]
    verified = world.federation.kopuro("log", "verify", "--data", "civil/data", "--vkey", vkey)
    (folder / "checkpoint").write_text(verified.split("\n", 1)[1])
    world.federation.kopuro("log", "open", "--data", "civil/data", "--index", "0", "--field", "address", "--field", "request-digest",
                            "--checkpoint", "checkpoint", "-o", "opening.json")
    check = [sys.executable, "check_opening.py", "opening.json", vkey, "checkpoint"]
    shown = subprocess.run(check, cwd=folder, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and "address is b'127.0.0.1'" in shown.stdout, (shown.stdout, shown.stderr)
    forged = (folder / "opening.json").read_text().replace("MTI3LjAuMC4x", "MTI3LjAuMC4y")
    (folder / "opening.json").write_text(forged)
    shown = subprocess.run(check, cwd=folder, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 1 and "NOT SHOWN: address" in shown.stderr, (shown.stdout, shown.stderr)


def each_exchange_is_in_both_logs_with_the_same_outcome(world):
    civil, tax = (logged(world, node) for node in ("civil", "tax"))
    for exchange, status in world.seen.items():
        assert exchange in tax, f"{exchange}, which ended in status {status}, is not in the consumer's log"
        # At a deadline, the client's own clock may cancel the call before the node's ends it.
        alike = (1, 4) if status in (1, 4) else (status,)
        assert tax[exchange]["grpc_status"] in alike, f"the client saw status {status}: {tax[exchange]}"
    assert len(world.seen) > 1000
    only_consumer = 0
    for exchange, here in tax.items():
        there = civil.get(exchange)
        if there is None:
            # What never left the consumer's node.
            assert here["outcome"] == "refused" and here["side"] == "CONSUMER" or here["reason"] == "PEER_UNREACHABLE", here
            only_consumer += 1
            continue
        assert here["outcome"] == there["outcome"] != "open", (here, there)
        for field in ("consumer", "provider", "service", "method"):
            assert here[field] == there[field], (here, there)
        if here["outcome"] in ("ok", "error"):
            # The consumer's first entry has the basis that the caller named, if it named one.
            assert there["legal_basis"] == BASIS and here["legal_basis"] in ("", BASIS), (here, there)
    strangers = set(civil) - set(tax)
    assert not strangers, f"only in the provider's log: {[civil[exchange] for exchange in strangers]}"
    print(f"        {len(tax)} exchanges in the consumer's log, {len(civil)} in the provider's; {only_consumer} never left")


def logged(world, node):
    """All exchanges of a node's log, by id, as `kopuro log query` prints them."""
    told = world.federation.kopuro("log", "query", "--data", f"{node}/data", "--format", "jsonl", "--limit", "1000000")
    rows = [json.loads(line) for line in told.splitlines()]
    assert len({row["exchange_id"] for row in rows}) == len(rows)
    return {row["exchange_id"]: {**row, "outcome": row["outcome"].lower()} for row in rows}


CHECKS = [
    unary_call,
    client_stream,
    client_stream_without_a_message,
    server_stream,
    server_stream_without_a_message,
    bidirectional_stream,
    metadata_both_ways,
    repeated_metadata_keeps_its_values_in_order,
    metadata_of_streams,
    the_back_end_learns_who_asks_and_on_which_basis,
    rich_error_details,
    the_server_ends_its_stream_with_an_error,
    the_server_ends_a_conversation_with_an_error,
    the_server_answers_before_the_client_has_sent_all,
    deadline,
    deadline_of_a_stream,
    the_client_cancels_a_call,
    the_client_cancels_a_stream,
    the_client_cancels_a_conversation,
    three_mebibytes_each_way,
    compressed_messages,
    a_request_over_the_limit,
    a_streamed_request_over_the_limit,
    an_answer_over_the_limit,
    a_streamed_answer_over_the_limit,
    a_thousand_calls_at_once_on_one_channel,
    slow_readers_of_tiny_messages,
    forged_gateway_metadata,
    a_call_without_a_grant,
    a_stream_without_a_grant,
    a_system_that_its_own_ministry_does_not_let_out,
    another_purpose_than_the_granted,
    an_unknown_service_and_an_unknown_method,
    a_named_provider,
    no_certificate_no_call,
    reflection_shows_what_the_caller_may_call,
    standard_health_check,
    *web.CHECKS,
    metrics_for_prometheus,
    kopuro_call_by_hand,
    an_auditor_asks_the_running_node,
    the_back_end_is_down,
    the_other_node_is_down,
]

AFTERWARDS = [
    sigterm_lets_a_running_call_end_and_exits_0,
    both_logs_verify,
    an_opening_holds_by_the_documented_procedure,
    each_exchange_is_in_both_logs_with_the_same_outcome,
]

"""A ministry's back-end as a Python team would write it: generated stubs, grpc.aio, mutual TLS.

It does what a request's script asks and remembers what it saw, for the tests to ask on a second, plain, loopback port.
"""

import argparse
import asyncio
import signal

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

import echo_pb2
import echo_pb2_grpc

INITIAL = (("x-initial", "from the server"), ("x-initial-bin", b"\x00\x01\xfe\xff"))
TRAILING = (("x-trailing", "at the end"), ("x-trailing-bin", bytes(range(256))))


class Observer(echo_pb2_grpc.ObserverServicer):
    """What was seen of each call, by label."""

    def __init__(self):
        self.calls = {}
        self.running = 0
        self.peak = 0

    async def Observe(self, request, context):
        return self.calls.get(request.label, echo_pb2.Observed())

    async def Peak(self, request, context):
        peak, self.peak = self.peak, self.running
        return echo_pb2.PeakReply(calls=peak)

    def begin(self, label, context):
        remaining = context.time_remaining()
        names = context.auth_context().get("x509_subject_alternative_name", [])
        seen = echo_pb2.Observed(
            started=True,
            time_remaining=-1 if remaining is None else remaining,
            peer_names=[name.decode() for name in names],
            metadata=[
                echo_pb2.Pair(name=name, value=value if isinstance(value, bytes) else value.encode())
                for name, value in context.invocation_metadata()
            ],
        )
        self.calls[label] = seen
        return seen


class Call:
    """Notes a call's beginning and end, however it ends."""

    def __init__(self, observer):
        self.observer = observer
        self.seen = None

    def __enter__(self):
        self.observer.running += 1
        self.observer.peak = max(self.observer.peak, self.observer.running)
        return self

    def begin(self, request, context):
        self.seen = self.observer.begin(request.label, context)
        return self.seen

    def __exit__(self, kind, error, trace):
        self.observer.running -= 1
        if self.seen is not None:
            # A call that is cancelled while it reads or writes ends in that operation's error as often as in CancelledError.
            if kind is None or kind is grpc.aio.AbortError:
                self.seen.ended = True
            else:
                self.seen.cancelled = True


class Echo(echo_pb2_grpc.EchoServicer):
    def __init__(self, observer):
        self.observer = observer

    async def Unary(self, request, context):
        with Call(self.observer) as call:
            seen = call.begin(request, context)
            seen.received = 1
            await self.prepare(request.script, context)
            if request.script.status:
                await fail(request.script.status, context)
            seen.sent = 1
            size = request.script.reply_size
            return echo_pb2.Reply(payload=b"\0" * size if size else request.payload, number=1)

    async def Collect(self, requests, context):
        with Call(self.observer) as call:
            seen, script, received = None, None, bytearray()
            async for request in requests:
                if seen is None:
                    seen, script = call.begin(request, context), request.script
                    await self.prepare(script, context)
                seen.received += 1
                received += request.payload
                if script.status and seen.received >= script.status_after:
                    await fail(script.status, context)
            count = seen.received if seen else 0
            return echo_pb2.Reply(payload=bytes(received), number=count)

    async def Expand(self, request, context):
        with Call(self.observer) as call:
            seen = call.begin(request, context)
            seen.received = 1
            script = request.script
            await self.prepare(script, context)
            payload = b"\0" * script.reply_size if script.reply_size else request.payload
            for number in range(script.replies):
                if script.status and number >= script.status_after:
                    break
                await context.write(echo_pb2.Reply(payload=payload, number=number))
                seen.sent += 1
            if script.status:
                await fail(script.status, context)

    async def Chat(self, requests, context):
        with Call(self.observer) as call:
            seen, script = None, None
            async for request in requests:
                if seen is None:
                    seen, script = call.begin(request, context), request.script
                    await self.prepare(script, context)
                seen.received += 1
                if script.status and seen.sent >= script.status_after:
                    await fail(script.status, context)
                await context.write(echo_pb2.Reply(payload=request.payload, number=seen.sent))
                seen.sent += 1

    async def prepare(self, script, context):
        if script.gzip:
            context.set_compression(grpc.Compression.Gzip)
        context.set_trailing_metadata(TRAILING)
        await context.send_initial_metadata(INITIAL)
        if script.delay_ms:
            await asyncio.sleep(script.delay_ms / 1000)


async def fail(code, context):
    """Ends a call with a status that has rich details, as grpc_status makes them."""
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="pin", description="14 сан болушу керек")
    info = error_details_pb2.ErrorInfo(reason="PIN_INVALID", domain="civil.example")
    status = status_pb2.Status(code=code, message="не тот ПИН: 100 %")
    for detail in (bad, info):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    rich = rpc_status.to_status(status)
    await context.abort(rich.code, rich.details, (*TRAILING, *rich.trailing_metadata))


async def serve(arguments):
    observer = Observer()
    server = grpc.aio.server(options=[
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", 16 << 20),
        ("grpc.max_concurrent_streams", 2_000),
    ])
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(observer), server)
    with open(arguments.key, "rb") as key, open(arguments.certificate, "rb") as chain, open(arguments.roots, "rb") as roots:
        credentials = grpc.ssl_server_credentials(
            [(key.read(), chain.read())], root_certificates=roots.read(), require_client_auth=True
        )
    server.add_secure_port(f"127.0.0.1:{arguments.port}", credentials)
    plain = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    echo_pb2_grpc.add_ObserverServicer_to_server(observer, plain)
    plain.add_insecure_port(f"127.0.0.1:{arguments.observer_port}")
    await plain.start()
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(0)
    await plain.stop(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--observer-port", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--roots", required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()

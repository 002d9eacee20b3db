"""Systems without gRPC, through the same two nodes: curl, and clients from npm; what a node says of a service, judged by others."""

import json
import subprocess
from pathlib import Path

import openapi_spec_validator
from jsonschema import Draft202012Validator

from federation import CONSUMER

ECHO = "/interop.v1.Echo"


def curl(world, path, *options, system=CONSUMER, body=None, status=200):
    """What curl says: headers by name, and the body. Notes the exchange."""
    federation = world.federation
    name = system.rsplit("/", 1)[1]
    command = ["curl", "-sS", "-i", "--max-time", "20", "--cacert", "pki/root/ca.pem", "--cert", f"tax/{name}.pem",
               "--key", f"tax/{name}.key", *options, f"https://localhost:{federation.tax.systems}{path}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(command, cwd=federation.folder, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, (command, done.stderr)
    head, told = done.stdout.split(b"\r\n\r\n", 1)
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert int(first.split(" ")[1]) == status, done.stdout
    return headers, told


def curl_calls_in_json(world):
    for version in ("--http1.1", "--http2"):
        headers, told = curl(world, f"{ECHO}/Unary", version, body={"label": f"curl {version}", "payload": "aGVsbG8="})
        assert json.loads(told)["payload"] == "aGVsbG8=", told
        world.seen[headers["kopuro-exchange"]] = 0
        observed = world.observe(f"curl {version}")
        metadata = {pair.name: pair.value for pair in observed.metadata}
        assert metadata["kopuro-consumer"] == CONSUMER.encode(), metadata


def curl_is_told_what_is_wrong(world):
    headers, told = curl(world, f"{ECHO}/Unary", body={"lable": "x"}, status=400)
    error = json.loads(told)
    assert (error["code"], error["details"][0]["debug"]["reason"]) == ("invalid_argument", "UNKNOWN_FIELD"), error
    assert 'no field "lable"' in error["message"], error
    world.seen[headers["kopuro-exchange"]] = 3
    headers, told = curl(world, f"{ECHO}/Unary", body={"label": "curl-fails", "script": {"status": 5}}, status=404)
    assert json.loads(told)["code"] == "not_found", told
    world.seen[headers["kopuro-exchange"]] = 5


def curl_calls_by_the_paths_of_an_annotation(world):
    headers, told = curl(world, "/v1/echo/curl-rest", body={"payload": "aGVsbG8="})
    assert json.loads(told)["payload"] == "aGVsbG8=", told
    world.seen[headers["kopuro-exchange"]] = 0
    headers, told = curl(world, "/v1/echo/curl-rest:expand?script.replies=3&script.replySize=2")
    lines = [json.loads(line) for line in told.splitlines()]
    assert [len(line.get("result", {}).get("payload", "")) for line in lines[:3]] == [4, 4, 4], lines
    assert "end" in lines[3] and "error" not in lines[3]["end"] and len(lines) == 4, lines
    world.seen[headers["kopuro-exchange"]] = 0


def a_service_is_described_for_those_who_may_call_it(world):
    _, told = curl(world, "/openapi")
    listed = json.loads(told)["services"]
    assert [service["service"] for service in listed] == ["interop.v1.Echo"], listed
    _, told = curl(world, listed[0]["openapi"])
    document = json.loads(told)
    openapi_spec_validator.validate(document)
    assert document["openapi"].startswith("3.1")
    assert {f"{ECHO}/Unary", "/v1/echo/{label}", "/v1/echo/{label}:expand"} <= set(document["paths"])
    # A real answer, and a real error, are what the document says they are.
    judge = lambda name: Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})
    headers, told = curl(world, f"{ECHO}/Unary", body={"label": "curl-schema", "payload": "aGVsbG8="})
    world.seen[headers["kopuro-exchange"]] = 0
    judge("interop.v1.Reply").validate(json.loads(told))
    assert not judge("interop.v1.Reply").is_valid({"payload": 7})
    headers, told = curl(world, f"{ECHO}/Unary", body={"label": 7}, status=400)
    world.seen[headers["kopuro-exchange"]] = 3
    judge("connect.Error").validate(json.loads(told))
    _, told = curl(world, "/openapi", system="KG/GOV/70000006/archive")
    assert json.loads(told)["services"] == [], told


def clients_from_npm(world):
    if world.connect is None:
        raise AssertionError("where are they? npm install in a copy of tests/interop/connect, and --connect THAT")
    federation = world.federation
    command = ["node", Path(world.connect) / "client.mjs", f"https://localhost:{federation.tax.systems}", "pki/root/ca.pem",
               "tax/tax-service.pem", "tax/tax-service.key", "directory/echo.binpb"]
    done = subprocess.run(command, cwd=federation.folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    for call in calls:
        world.seen[call["exchange"]] = call["status"]
    print(f"        {len(calls)} calls")


CHECKS = [
    curl_calls_in_json,
    curl_is_told_what_is_wrong,
    curl_calls_by_the_paths_of_an_annotation,
    a_service_is_described_for_those_who_may_call_it,
    clients_from_npm,
]

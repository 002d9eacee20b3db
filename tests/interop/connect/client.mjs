// Calls interop.v1.Echo at a node, with no generated code: the types are read from the descriptor set that the directory lists.
// Prints each call's exchange id and gRPC status as a line of JSON, for both logs to be searched for.
//
//   node client.mjs https://localhost:7443 root.pem system.pem system.key echo.binpb

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";

const [baseUrl, ca, cert, key, descriptors] = process.argv.slice(2);
const read = (path) => readFileSync(path);
const nodeOptions = { ca: read(ca), cert: read(cert), key: read(key) };
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, read(descriptors)));
const Echo = registry.getService("interop.v1.Echo");

function ended(headers, status) {
  const exchange = headers.get("kopuro-exchange");
  assert.match(exchange ?? "", /^[0-9a-f-]{36}$/, "an exchange id");
  console.log(JSON.stringify({ exchange, status }));
}

async function unary(client, label) {
  let seen;
  const options = { onHeader: (headers) => (seen = headers), headers: { "x-label": label }, timeoutMs: 20_000 };
  const reply = await client.unary({ label, payload: new TextEncoder().encode("салам") }, options);
  assert.equal(new TextDecoder().decode(reply.payload), "салам");
  ended(seen, 0);
}

async function serverStream(client, label) {
  let seen;
  let numbers = [];
  const options = { onHeader: (headers) => (seen = headers), timeoutMs: 20_000 };
  for await (const reply of client.expand({ label, script: { replies: 5, replySize: 100 } }, options)) {
    assert.equal(reply.payload.length, 100);
    numbers.push(reply.number);
  }
  assert.equal(numbers.length, 5);
  ended(seen, 0);
}

async function clientStream(client, label) {
  let seen;
  async function* requests() {
    for (const text of ["a", "bc", "def"]) yield { label, payload: new TextEncoder().encode(text) };
  }
  const reply = await client.collect(requests(), { onHeader: (headers) => (seen = headers), timeoutMs: 20_000 });
  assert.equal(reply.number, 3);
  ended(seen, 0);
}

async function conversation(client, label) {
  let seen;
  async function* requests() {
    for (const text of ["a", "b"]) yield { label, payload: new TextEncoder().encode(text) };
  }
  let count = 0;
  for await (const _ of client.chat(requests(), { onHeader: (headers) => (seen = headers), timeoutMs: 20_000 })) count += 1;
  assert.equal(count, 2);
  ended(seen, 0);
}

async function errors(client, label) {
  const failed = async (call) => {
    try {
      await call;
    } catch (error) {
      return ConnectError.from(error);
    }
    assert.fail("the call was OK");
  };
  const theirs = await failed(client.unary({ label, script: { status: 9 } }));
  assert.equal(theirs.code, Code.FailedPrecondition);
  ended(theirs.metadata, 9);
  const ours = await failed(client.unary({ label }, { headers: { "kopuro-purpose": "KG-NO-SUCH" } }));
  assert.ok([Code.FailedPrecondition, Code.PermissionDenied].includes(ours.code), String(ours.code));
  assert.ok(ours.details.some((detail) => detail.type === "google.rpc.ErrorInfo"), "ErrorInfo");
  ended(ours.metadata, ours.code);
}

const gets = { useHttpGet: true };
const transports = {
  "connect, JSON, HTTP/1.1": createConnectTransport({ baseUrl, nodeOptions, httpVersion: "1.1" }),
  "connect, JSON by GET, HTTP/1.1": createConnectTransport({ baseUrl, nodeOptions, httpVersion: "1.1", ...gets }),
  "connect, JSON, HTTP/2": createConnectTransport({ baseUrl, nodeOptions, httpVersion: "2" }),
  "connect, protobuf, HTTP/2": createConnectTransport({ baseUrl, nodeOptions, httpVersion: "2", useBinaryFormat: true, ...gets }),
  "gRPC-Web, HTTP/1.1": createGrpcWebTransport({ baseUrl, nodeOptions, httpVersion: "1.1" }),
  "gRPC-Web, HTTP/2": createGrpcWebTransport({ baseUrl, nodeOptions, httpVersion: "2" }),
  "gRPC, HTTP/2": createGrpcTransport({ baseUrl, nodeOptions }),
};

for (const [name, transport] of Object.entries(transports)) {
  const client = createClient(Echo, transport);
  const label = `connect-node ${name}`;
  try {
    await unary(client, label);
    await serverStream(client, label);
    await errors(client, label);
    if (!name.startsWith("gRPC-Web")) await clientStream(client, label);
    if (name.endsWith("HTTP/2") && !name.startsWith("gRPC-Web")) await conversation(client, label);
  } catch (error) {
    console.error(`${name}:`, error);
    process.exit(1);
  }
}
process.exit(0);

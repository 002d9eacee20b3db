#!/usr/bin/env python3
"""Rules of buf.validate, judged by protovalidate itself: the table that our own checks are tested with (rules.json) must hold.

    rules.py
"""

import json
import sys
import tempfile
from pathlib import Path

import grpc_tools
import protovalidate
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
HEAD = """syntax = "proto3";
package rules;
import "buf/validate/validate.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";
enum E { E_ZERO = 0; E_ONE = 1; E_FOUR = 4; }
"""


def main():
    table = json.loads((HERE / "rules.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        messages = "".join(f"message M{index} {{ {case['field']} }}\n" for index, case in enumerate(table))
        (folder / "rules.proto").write_text(HEAD + messages)
        known = Path(grpc_tools.__file__).parent / "_proto"
        out = folder / "rules.binpb"
        if protoc.main(["protoc", f"-I{folder}", f"-I{HERE.parents[1] / 'proto'}", f"-I{known}", "--include_imports",
                        f"--descriptor_set_out={out}", "rules.proto"]):
            sys.exit("rules.proto does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    wrong = judged = 0
    for index, case in enumerate(table):
        made = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"rules.M{index}"))
        for expected in ("valid", "invalid"):
            for value in case[expected]:
                message = json_format.ParseDict({} if value is None else {"v": value}, made())
                found = "invalid" if protovalidate.collect_violations(message) else "valid"
                judged += 1
                if found != expected:
                    wrong += 1
                    print(f"{case['field']}: {value!r} is {found} to protovalidate, and {expected} in the table")
    print(f"rules: {judged} values of {len(table)} fields, {wrong} judged otherwise by protovalidate")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

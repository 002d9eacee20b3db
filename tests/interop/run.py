"""The foreign client: Python's grpcio with plain generated stubs, through two nodes, to a Python back-end.

    python tests/interop/run.py --kopuro target/release/kopuro

Needs requirements.txt. Prints a line per check and, last, `N passed, M failed`; exits 0 only if none failed.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent


def generate_stubs(folder):
    """What `python -m grpc_tools.protoc` makes; imported from there."""
    import grpc_tools
    from grpc_tools import protoc

    arguments = ["protoc", f"-I{HERE}", f"-I{HERE.parents[1] / 'proto'}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
                 f"--python_out={folder}", f"--grpc_python_out={folder}", str(HERE / "echo.proto")]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kopuro", default=os.environ.get("KOPURO_BIN", "target/release/kopuro"), help="the binary to test")
    parser.add_argument("--dir", help="an empty folder to work in, kept; default a temporary one, removed if all passed")
    parser.add_argument("--only", default="", help="only checks with this in their names")
    parser.add_argument("--connect", help="a copy of tests/interop/connect in which `npm install` was run")
    arguments = parser.parse_args()
    if not Path(arguments.kopuro).is_file():
        parser.error(f"no binary at {arguments.kopuro}: cargo build --release, or --kopuro FILE")

    work = Path(arguments.dir or tempfile.mkdtemp(prefix="kopuro-interop-")).resolve()
    (work / "stubs").mkdir(parents=True, exist_ok=True)
    generate_stubs(work / "stubs")
    # They import the stubs that have just been made.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from checks import AFTERWARDS, CHECKS, World

    with World(arguments.kopuro, work, arguments.connect) as world:
        failed = sum(not passed(check, world) for check in CHECKS if arguments.only in check.__name__)
        failed += sum(not passed(check, world) for check in AFTERWARDS)
        run = sum(arguments.only in check.__name__ for check in CHECKS) + len(AFTERWARDS)
    if failed:
        print(f"left for inspection: {work}")
    elif not arguments.dir:
        import shutil

        shutil.rmtree(work)
    print(f"{run - failed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


def passed(check, *arguments):
    """Whether a check passes; says so, and how long it took."""
    name, start = check.__name__.replace("_", " "), time.monotonic()
    try:
        check(*arguments)
    except Exception:
        print(f"FAILED  {name} ({time.monotonic() - start:.1f} s)\n{traceback.format_exc()}", flush=True)
        return False
    print(f"passed  {name} ({time.monotonic() - start:.1f} s)", flush=True)
    return True


if __name__ == "__main__":
    main()

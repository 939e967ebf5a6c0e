"""The script that each of several processes runs, in an interpreter of its own.

Imports nothing of ours before the path is its parent's, so that it finds every module where its parent does.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import sys


def main() -> int:
    """Become what the first line of the channel says; the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # until the loop takes them; the parent has them too, and says so
    given = _arguments()
    parent = socket.socket(fileno=given.channel)
    with parent.makefile("rb", buffering=0) as lines:
        first = lines.readline()
    if not first.endswith(b"\n"):
        return 0  # the parent is gone already
    assignment = json.loads(first)
    sys.path[:] = assignment["path"]
    sys.argv[:] = ["antiphon", "run"]

    from runtime.commands import run
    from runtime.lines import share_output
    from runtime.shell import outcome

    share_output()
    name = f"antiphon process {given.process}"
    return outcome(lambda: run.one_of_several(assignment["parts"], given.process, parent), stays=True, name=name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="antiphon run --processes", allow_abbrev=False)
    parser.add_argument("--process", type=int, required=True)
    parser.add_argument("--channel", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""Run commands with real servers at hand: `python -m tests.services "pytest …" "pytest …"`.

Both servers are started first and named, the commands run one after the other, and the last line counts the tests of
all of them. One that fails does not keep the next from running; Ctrl-C does.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.keeping import POSTGRES, RABBITMQ, TALLY, ServiceMissingError, ask, folder_of_the_run, kept

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTERRUPTED = (2, -signal.SIGINT, -signal.SIGTERM)  # pytest's own code for Ctrl-C, and what a signal leaves


def main(commands: list[str]) -> int:
    """The exit code of the first command that fails, 1 when a server cannot be had, else 0."""
    began = time.monotonic()
    with kept():
        for service in (POSTGRES, RABBITMQ):
            try:
                print(f"services: {service}: {ask(service).source}", flush=True)
            except ServiceMissingError as error:
                print(f"services: {service}: {error}", file=sys.stderr, flush=True)
                return 1
        tally = (folder_of_the_run() or Path()) / "tally"
        os.environ[TALLY] = str(tally)
        codes = list(_codes(commands))
        print(_total(tally), f"in {time.monotonic() - began:.0f} s", flush=True)
        return next(filter(None, codes), 0)


def _codes(commands: list[str]) -> Iterator[int]:
    for command in commands:
        code = _run(command)
        yield code
        if code in _INTERRUPTED:
            return


def _run(command: str) -> int:
    """Ctrl-C reaches the command by itself, being in our group; it decides how to end, and we tidy up after it."""
    with subprocess.Popen(shlex.split(command)) as child:
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        return child.wait()


def _total(tally: Path) -> str:
    counts: Counter[str] = Counter()
    for line in tally.read_text().splitlines() if tally.exists() else []:
        counts.update(json.loads(line))
    return "all tests: " + (", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none ran")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

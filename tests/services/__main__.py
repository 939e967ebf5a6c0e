"""Run a command with real servers at hand: `python -m tests.services pytest …`. Both are started first, and named."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.services.keeping import POSTGRES, RABBITMQ, ServiceMissingError, ask, kept


def main(command: list[str]) -> int:
    """The command's exit code, or 1 when a server cannot be had."""
    with kept():
        for service in (POSTGRES, RABBITMQ):
            try:
                print(f"services: {service}: {ask(service).source}", flush=True)
            except ServiceMissingError as error:
                print(f"services: {service}: {error}", file=sys.stderr, flush=True)
                return 1
        return _run(command)


def _run(command: list[str]) -> int:
    """Ctrl-C reaches the command by itself, being in our group; it decides how to end, and we tidy up after it."""
    with subprocess.Popen(command) as child:
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        return child.wait()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

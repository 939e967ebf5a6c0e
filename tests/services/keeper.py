"""One process that holds the servers of a test run, so that they start once, when first needed, and always stop.

It listens on a Unix socket for the names of services and answers with where they are. The far end of its standard
input belongs to the test run: when that ends, in whatever way, the keeper stops everything and goes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.keeping import POSTGRES, RABBITMQ, USED, VARIABLE
from tests.services.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tests.services.offer import Offer


class _Keeper:
    """Answers one question at a time; what was found once, or not found, stays the answer."""

    def __init__(self, ending: ExitStack) -> None:
        self._ending = ending
        self._answers: dict[str, dict[str, str]] = {}

    def answer(self, question: str) -> dict[str, str]:
        if question == USED:
            return {service: answer.get("source", "missing") for service, answer in self._answers.items()}
        if question not in self._answers:
            self._answers[question] = self._find(question)
        return self._answers[question]

    def _find(self, service: str) -> dict[str, str]:
        try:
            return asdict(_finder(service)(self._ending))
        except Exception as error:
            return {"error": str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"}


def _finder(service: str) -> Callable[[ExitStack], Offer]:
    """Imported when first needed: a run of tests that need no server starts at once."""
    from tests.services.discovery import offer_postgres, offer_rabbitmq

    return {POSTGRES: offer_postgres, RABBITMQ: offer_rabbitmq}[service]


def _serve(address: Path) -> None:
    with ExitStack() as ending, socket.socket(socket.AF_UNIX) as door:
        keeper = _Keeper(ending)
        door.bind(str(address))
        door.listen(64)
        print("listening", flush=True)
        while True:
            line, _ = door.accept()
            with line, line.makefile() as questions:
                answer = json.dumps(keeper.answer(questions.readline().strip()))
                with suppress(OSError):  # whoever asked may have gone
                    line.sendall(answer.encode() + b"\n")


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)


def _leave_with_the_owner() -> None:
    """Even in the middle of starting something: the signal interrupts the main thread, which then tidies up."""

    def wait_for_the_owner() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=wait_for_the_owner, daemon=True).start()


def main() -> None:
    """Keep services at the address given as the only argument."""
    _leave_with_the_owner()
    address = Path(sys.argv[1])
    os.environ[VARIABLE] = str(address)
    try:
        _serve(address)
    finally:
        until(lambda: _removed(address.parent), what=f"{address.parent} to be given up by the servers of the run")


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


if __name__ == "__main__":
    main()

"""The test run's side of the keeper of services: have one for as long as the run lasts, and ask it for servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.offer import Offer

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "ANTIPHON_TEST_SERVICES"  # where the keeper listens; workers of pytest-xdist inherit it
TALLY = "ANTIPHON_TEST_TALLY"  # a file to which each pytest run adds its counts as a line
POSTGRES = "postgres"
RABBITMQ = "rabbitmq"
USED = "used"
_LONGEST_START = 900.0  # pulling an image, or apt-get, over a slow line
_LONGEST_STOP = 60.0


class ServiceMissingError(AssertionError):
    """A service the tests need cannot be had; the text says why and what to do."""


def ask(service: str) -> Offer:
    """The offer of one service, started if need be.

    Raises:
        ServiceMissingError: it cannot be had, or no keeper runs.
    """
    answer = _exchange(service)
    if "error" in answer:
        raise ServiceMissingError(answer["error"])
    return Offer(**answer)


def used() -> dict[str, str]:
    """Source by service, of those that have been asked for so far."""
    return _exchange(USED)


@contextmanager
def kept() -> Iterator[None]:
    """Have a keeper for the length of the block: the one in charge already, or a new one that ends with the block."""
    if VARIABLE in os.environ:
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix="antiphon-tests-"))
    folder.chmod(0o711)  # the servers in it may run as another user
    address = folder / "keeper"
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.services.keeper", str(address)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the test run, which then lets go of us
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        if not keeper.stdout.readline():
            raise ServiceMissingError("the keeper of the test services did not start; its error stands above")
        os.environ[VARIABLE] = str(address)
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        keeper.stdin.close()
        keeper.stdout.close()
        keeper.wait(timeout=_LONGEST_STOP)


def folder_of_the_run() -> Path | None:
    """Where servers of this test run keep their files, so that the keeper can remove them whatever happens."""
    address = os.environ.get(VARIABLE)
    return Path(address).parent if address else None


def _exchange(question: str) -> dict[str, str]:
    address = os.environ.get(VARIABLE)
    if address is None:
        raise ServiceMissingError("no keeper of services runs: start the tests through `make test` or pytest")
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_LONGEST_START)
        line.connect(address)
        line.sendall(question.encode() + b"\n")
        with line.makefile() as answers:
            answer: dict[str, str] = json.loads(answers.readline())
    return answer

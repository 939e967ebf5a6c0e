"""Commands as processes of their own, forked from a server that has everything imported: a start costs no imports.

What a command gets is what a shell would give it: arguments, environment, current folder, its three streams.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import queue
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.preloaded import PRELOADED

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from pathlib import Path

BOUND = 60.0
"""Seconds after which a process that should have ended or spoken is taken for stuck."""

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload([*PRELOADED, "tests.runtime.processes"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command left: its exit code and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


class Process:
    """A command that runs; its log lines are read as they come."""

    def __init__(self, arguments: tuple[str, ...], settings: Mapping[str, str], folder: Path, stdin: str = "") -> None:
        self._texts: list[str] = []
        self._errors: list[str] = []
        self._arrived: queue.Queue[str | None] = queue.Queue()
        given, feed = _FORKING.Pipe(duplex=False)
        read_out, out = _FORKING.Pipe(duplex=False)
        read_err, err = _FORKING.Pipe(duplex=False)
        inside = (arguments, _environment(settings), str(folder), (given, out, err))
        self._process = _FORKING.Process(target=_run, args=inside, daemon=True)
        self._process.start()
        for theirs in (given, out, err):
            theirs.close()
        _write(feed, stdin)
        self._readers = [
            threading.Thread(target=self._read_out, args=(read_out,)),
            threading.Thread(target=self._read_errors, args=(read_err,)),
        ]
        for reader in self._readers:
            reader.start()

    def until(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for a log line with these values; fails when the process ends or stays silent first."""
        while True:
            line = self._next(event)
            if line["event"] == event and all(line.get(name) == value for name, value in fields.items()):
                return line

    def says(self, part: str) -> str:
        """Wait for a line that contains this, whatever its form; fails when the process ends or stays silent first."""
        while True:
            text = self._text(part)
            if part in text:
                return text

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        self._process.join(BOUND)
        code = self._process.exitcode
        if code is None:
            self.kill()
            raise AssertionError(f"still ran after {BOUND} s: {self._texts}")
        for reader in self._readers:
            reader.join()
        return code

    def result(self) -> Ended:
        """Wait for its end; what it left."""
        code = self.ended()
        return Ended(returncode=code, stdout="".join(self._texts), stderr=self.stderr)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log lines so far; all of them once it has ended."""
        return [json.loads(text) for text in self._texts]

    @property
    def stderr(self) -> str:
        """What it wrote there; all of it once it has ended."""
        return "".join(self._errors)

    def kill(self) -> None:
        """End it without asking."""
        self._process.kill()
        self._process.join(BOUND)
        for reader in self._readers:
            reader.join()

    def _next(self, wanted: str) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self._text(wanted))
        return line

    def _text(self, wanted: str) -> str:
        try:
            text = self._arrived.get(timeout=BOUND)
        except queue.Empty:
            raise AssertionError(f"no {wanted} within {BOUND} s: {self._texts} {self._errors}") from None
        assert text is not None, f"ended before {wanted}: {self._texts} {self._errors}"
        return text

    def _read_out(self, stream: Connection) -> None:
        with stream, open(stream.fileno(), encoding="utf-8", closefd=False) as texts:
            for text in texts:
                self._texts.append(text)
                self._arrived.put(text)
        self._arrived.put(None)

    def _read_errors(self, stream: Connection) -> None:
        with stream, open(stream.fileno(), encoding="utf-8", closefd=False) as texts:
            self._errors.extend(texts)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without its settings, and with these; names as in the settings, in lower case."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    return {**kept, **{f"ANTIPHON_{name.upper()}": value for name, value in settings.items()}}


def _write(feed: Connection, text: str) -> None:
    with feed, open(feed.fileno(), "w", encoding="utf-8", closefd=False) as stream:
        stream.write(text)


def _run(arguments: tuple[str, ...], environment: dict[str, str], folder: str, streams: tuple[Connection, ...]) -> None:
    """In the new process: take the streams, the environment and the folder, and become the command."""
    gc.freeze()  # what was imported before the fork is no garbage of this process
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["antiphon", *arguments]
    sys.dont_write_bytecode = True  # tests write a module twice in a second, which byte code does not notice
    warnings.simplefilter("error")
    from runtime.cli import main

    main()

"""The worker processes: one `celery worker` per participant, for its own queue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from settings import WORKER_OPTIONS

PARTICIPANTS = ("stock", "payment", "warehouse")
PATIENCE = 60.0  # seconds to be ready
POLITE = 10.0  # seconds to end after SIGTERM


class DidNotStart(RuntimeError):  # noqa: N818 - names the situation
    """A worker ended or was not ready in time; the text has the end of what it wrote."""


class Workers:
    """All of them."""

    def __init__(self, variant: str, namespace: str, folder: Path) -> None:
        self._variant = variant
        self._namespace = namespace
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start them and wait until they consume.

        Raises:
            DidNotStart: one did not come up.
        """
        for participant in PARTICIPANTS:
            self._running[participant] = self._start(participant)
        patience = time.monotonic() + PATIENCE
        while not all((self._folder / f"{each}@ordering.ready").exists() for each in PARTICIPANTS):
            self.check()
            if time.monotonic() > patience:
                raise DidNotStart(f"the workers were not ready within {PATIENCE:g} s")
            time.sleep(0.05)

    def _start(self, participant: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "saga", "worker", "-n", f"{participant}@ordering"]
        command += ["-Q", f"{self._namespace}.{participant}", *WORKER_OPTIONS[self._variant]]
        with (self._folder / f"{participant}.log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PEER_PARTICIPANT": participant},
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `DidNotStart` when one has ended."""
        for participant, process in self._running.items():
            if process.poll() is not None:
                log = (self._folder / f"{participant}.log").read_text(errors="replace")
                ending = "\n".join(log.splitlines()[-20:])
                raise DidNotStart(f"the worker of {participant} ended with {process.returncode}:\n{ending}")

    def pids(self) -> list[int]:
        """Theirs and those of the processes they started."""
        found = []
        for process in self._running.values():
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            found += [process.pid, *map(int, children.split())]
        return found

    def end(self) -> None:
        """SIGTERM, then SIGKILL, with all that they started."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        patience = time.monotonic() + POLITE
        for process in self._running.values():
            try:
                process.wait(max(0.0, patience - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._running.clear()

    def ledger(self, participant: str) -> Counter[str]:
        """What was executed, once they have ended."""
        executed: Counter[str] = Counter()
        for path in self._folder.glob(f"{participant}-*.ledger"):
            executed.update(json.loads(path.read_text()))
        return executed

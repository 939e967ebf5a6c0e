"""A command on a terminal of 80 columns, from nothing, as a person types it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]


def on_terminal(folder: Path, *arguments: str, **environment: str) -> str:
    """What it writes there, having ended well; `environment` comes on top of ours, without our settings."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANTIPHON_", "NO_COLOR"))}
    inherited = {**kept, "PYTHONPATH": str(HOME), "TERM": "xterm", "COLUMNS": "80", **environment}
    command = [sys.executable, "-m", "runtime", *arguments]
    with subprocess.Popen(command, cwd=folder, env=inherited, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how a terminal tells that nobody writes to it any more
        return b""

"""Processes forked from a server that has the product imported already: a start costs no second of imports.

What is forked is a process like any other: killed, stopped and waited for by its id. It runs the `main` of a module in
a folder, an environment and an output of its own, and the kernel kills it when the server goes, which goes with us.
The product it runs is the one that `PYTHONPATH` leads to, which may be a changed copy of ours.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.preloaded import PRELOADED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
PACKAGES: Sequence[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]["packages"]
PR_SET_PDEATHSIG = 1
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload([*PRELOADED, "tests.crash.forking", "tests.crash.participant"])


@dataclass(frozen=True, slots=True)
class Program:
    """The `main` of a module, and the words of its command line."""

    module: str
    words: Sequence[str]

    @property
    def command(self) -> list[str]:
        """The same as a command line, for a process that is to begin from nothing."""
        return [sys.executable, "-m", self.module.removesuffix(".cli"), *self.words]


class Forked:
    """A forked process, with the face of asyncio's: `pid`, `returncode`, `wait`."""

    def __init__(self, program: Program, *, folder: Path, env: Mapping[str, str], output: Path) -> None:
        inside = (program.module, tuple(program.words), str(folder), dict(env), str(output))
        self._process = FORKING.Process(target=become, args=inside, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._process.sentinel, self._notice)

    @property
    def returncode(self) -> int | None:
        """How it ended, as far as we have been told; a signal's number, negative, if one ended it."""
        return self._process.exitcode if self._ended.is_set() else None

    async def wait(self) -> int:
        """Wait for its end."""
        await self._ended.wait()
        code = self._process.exitcode
        assert code is not None, "a process that has ended has an exit code"
        return code

    def _notice(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self._ended.set()


def become(module: str, words: Sequence[str], folder: str, env: Mapping[str, str], output: str) -> None:
    """In the new process: take the output, the environment and the folder, and run."""
    gc.freeze()  # what was imported before the fork is no garbage of this process
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL.value, 0, 0, 0)
    log = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = [module, *words]
    tree = Path(env.get("PYTHONPATH", str(ROOT)).partition(os.pathsep)[0])
    if tree != ROOT:
        forget_ours(tree)
    main = importlib.import_module(module).main
    if foreign := [name for name, file in product_files().items() if not file.is_relative_to(tree)]:
        raise ImportError(f"these are not from {tree}: {', '.join(foreign)}")
    main()


def forget_ours(tree: Path) -> None:
    """Import the product anew, from another tree."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {*PACKAGES, "tests"}]:
        del sys.modules[name]
    sys.path.insert(0, str(tree))


def product_files() -> Mapping[str, Path]:
    """Where the modules of the product were found that are imported now."""
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}
    return {name: Path(module.__file__) for name, module in ours.items() if module.__file__}

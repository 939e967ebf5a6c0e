"""Where the server programs of PostgreSQL and RabbitMQ lie on this machine, and how to get them where they are missing.

On Debian and Ubuntu, as root or with passwordless sudo, missing ones are installed without starting the system's own
servers and without creating a cluster; everywhere else the reader is told exactly what to install.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_OLDEST_POSTGRES = 15
_POLICY = Path("/usr/sbin/policy-rc.d")
_CREATE_CLUSTER = Path("/etc/postgresql-common/createcluster.conf")
_FOLDERS_OF_RABBITMQ = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin")


_WANTED = {"postgresql": f"PostgreSQL {_OLDEST_POSTGRES} or newer", "rabbitmq-server": "RabbitMQ"}
_ADVICE = (
    "Do one of these: install PostgreSQL 15 or newer and RabbitMQ (Debian, Ubuntu: "
    "`sudo apt-get install postgresql rabbitmq-server`; macOS: `brew install postgresql@16 rabbitmq`), "
    "or start a Docker engine, "
    "or set ANTIPHON_TEST_DATABASE_URL and ANTIPHON_TEST_BROKER_URL to servers the tests may use."
)

Found = TypeVar("Found")


class NotInstalledError(AssertionError):
    """A server program is not on this machine and cannot be installed from here; the text says what to install."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """The folder with `initdb` and `postgres`, and what `postgres --version` says."""

    folder: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQ:
    """The programs of one RabbitMQ and of the Erlang it runs on."""

    server: Path
    ctl: Path
    epmd: Path
    version: str


def find_postgres() -> Postgres:
    """The newest PostgreSQL here, installed first if need be.

    Raises:
        NotInstalledError: there is none from 15 on.
    """
    return _search_postgres() or _after_installing("postgresql", _search_postgres)


def find_rabbitmq() -> RabbitMQ:
    """The RabbitMQ here, installed first if need be.

    Raises:
        NotInstalledError: there is none.
    """
    return _search_rabbitmq() or _after_installing("rabbitmq-server", _search_rabbitmq)


def _search_postgres() -> Postgres | None:
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    folders += [Path(found).resolve().parent for found in (shutil.which("initdb"), shutil.which("postgres")) if found]
    versions = [(_postgres_version(folder), folder) for folder in folders if (folder / "initdb").exists()]
    usable = [(version, folder) for version, folder in versions if version[0] >= _OLDEST_POSTGRES]
    if not usable:
        return None
    version, folder = max(usable)
    return Postgres(folder=folder, version=".".join(map(str, version)))


def _postgres_version(folder: Path) -> tuple[int, ...]:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)(?:\.(\d+))?", said)
    return tuple(int(part) for part in found.groups(default="0")) if found else (0,)


def _search_rabbitmq() -> RabbitMQ | None:
    epmd = shutil.which("epmd") or next((str(path) for path in Path("/usr/lib/erlang").glob("erts-*/bin/epmd")), None)
    server = _rabbitmq_server()
    if epmd is None or server is None:
        return None
    version = re.search(r"rabbitmq_server-([\d.]+)", str(server.resolve()))
    return RabbitMQ(
        server=server,
        ctl=server.with_name("rabbitmqctl"),
        epmd=Path(epmd),
        version=version.group(1) if version else "of unknown version",
    )


def _rabbitmq_server() -> Path | None:
    """The start script itself: Debian's wrapper on the path insists on root or the user rabbitmq."""
    candidates = [Path(folder) / "rabbitmq-server" for folder in _FOLDERS_OF_RABBITMQ]
    on_path = shutil.which("rabbitmq-server")
    if on_path and Path(on_path).resolve().name != "rabbitmq-script-wrapper":
        candidates.append(Path(on_path).resolve())
    return next((path for path in candidates if path.exists()), None)


def _after_installing(package: str, search: Callable[[], Found | None]) -> Found:
    install(package)
    found = search()
    if found is None:
        raise NotInstalledError(f"{package} is installed but {_WANTED[package]} was not found in it; {_ADVICE}")
    return found


def install(package: str) -> None:
    """Install one package through apt, leaving the system as it would be without its servers started.

    Raises:
        NotInstalledError: there is no apt here, no right to use it, or it failed.
    """
    apt = shutil.which("apt-get")
    rights = _rights()
    if apt is None or rights is None:
        why = "this is not Debian or Ubuntu" if apt is None else "that needs root or passwordless sudo"
        raise NotInstalledError(f"{_WANTED[package]} is not installed, and cannot be from here: {why}. {_ADVICE}")
    print(f"tests: installing {package} with apt-get; its own server is not started", file=sys.stderr, flush=True)
    with _no_services_started(rights):
        _must([*rights, "apt-get", "update", "-q"], package)
        if package == "postgresql":
            _apt_install(rights, "postgresql-common")
            with _replaced(_CREATE_CLUSTER, "create_main_cluster = false\n", 0o644, rights):
                _apt_install(rights, package)
        else:
            _apt_install(rights, package)


def _rights() -> list[str] | None:
    """What to put before a command that needs root; None when there is no way without asking for a password."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def _apt_install(rights: Sequence[str], package: str) -> None:
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q", "--no-install-recommends"]
    _must([*rights, *quiet, package], package)


def _no_services_started(rights: Sequence[str]) -> AbstractContextManager[None]:
    """Debian's own way to say so: a policy that answers 101, "not allowed", to every start."""
    return _replaced(_POLICY, "#!/bin/sh\nexit 101\n", 0o755, rights)


@contextmanager
def _replaced(path: Path, text: str, mode: int, rights: Sequence[str]) -> Iterator[None]:
    """Put `text` in a system file for the length of the block, and back what was there, or nothing."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as undo:
        ours = Path(folder) / path.name
        ours.write_text(text)
        if path.exists():
            kept = Path(folder) / "kept"
            _must([*rights, "cp", "-p", str(path), str(kept)], path.name)
            undo.callback(_must, [*rights, "cp", "-p", str(kept), str(path)], path.name)
        else:
            undo.callback(_must, [*rights, "rm", "-f", str(path)], path.name)
        _must([*rights, "install", "-m", f"{mode:o}", str(ours), str(path)], path.name)
        yield


def _must(command: Sequence[str], subject: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise NotInstalledError(
            f"installing {subject} failed: `{' '.join(command)}` ended with {done.returncode}:\n{output}\n{_ADVICE}"
        )

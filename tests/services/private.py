"""Private PostgreSQL and RabbitMQ servers from local binaries, in a temporary folder, on free ports.

They serve two purposes: the whole suite when there is neither a given server nor a Docker engine, and every test that
kills, restarts or cuts a server, whatever the rest of the suite runs on. A server of one of these classes belongs to
the process that started it and ends with it.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg

from tests.services.binaries import Postgres, RabbitMQ, find_postgres, find_rabbitmq
from tests.services.keeping import folder_of_the_run
from tests.services.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_LEASH = Path(__file__).with_name("leash.py")
_PORTS = range(21000, 32000)  # below Linux's range for outgoing connections, so that a restart finds its port free
_START_TIMEOUT = 90.0
_STOP_TIMEOUT = 45.0


class ServerError(AssertionError):
    """A private server did not start or stop; the text carries the end of its log."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class PrivateServer:
    """What both have in common: a folder, a user that is not root, a log, and a process on a leash."""

    name = "server"
    death_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"antiphon-{self.name}-", dir=folder_of_the_run()))
        self._user = _unprivileged_user()
        os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it answers. Starting a running server does nothing.

        Raises:
            ServerError: it ended or did not answer in time.
        """
        raise NotImplementedError

    def stop(self, *, graceful: bool = True) -> None:
        """Stop it and wait until it is gone; its data stays. `graceful=False` is `kill`."""
        raise NotImplementedError

    def kill(self) -> None:
        """`kill -9` the server with all its processes and wait until they are gone; its data stays."""
        if self._process is None:
            return
        _signal(self._process.pid, signal.SIGSTOP)  # or it could start another child while we count them
        pids = [self._process.pid, *_descendants(self._process.pid)]
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        self._process.wait(timeout=_STOP_TIMEOUT)
        _await_gone(pids)
        self._process = None

    def restart(self, *, graceful: bool = True) -> Self:
        """Stop or kill it and start it again on the same port with the same data."""
        self.stop(graceful=graceful)
        return self.start()

    def close(self) -> None:
        """Stop it for good and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _leashed(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start `command` as our user; it dies with this process. All three descriptors lead away from ours."""
        death = str(int(self.death_signal))
        leash = [sys.executable, "-I", str(_LEASH), death, str(self._user.pw_uid), str(self._user.pw_gid)]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*leash, str(os.getpid()), *map(str, command)],
                cwd=self.folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _run(self, command: Sequence[str | Path], environment: Mapping[str, str], timeout: float = 60.0) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            user=self._user.pw_uid if _we_are_root() else None,
            group=self._user.pw_gid if _we_are_root() else None,
            extra_groups=[] if _we_are_root() else None,
        )
        if done.returncode:
            raise ServerError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def _failed(self, what: str) -> ServerError:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return ServerError(f"{self.name} in {self.folder} {what}; the end of its log:\n" + "\n".join(lines[-30:]))

    def _await_end(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(timeout=_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failed(f"did not stop within {_STOP_TIMEOUT:g} s") from None


class PrivatePostgres(PrivateServer):
    """One PostgreSQL cluster of its own; superuser `postgres`, no password, 127.0.0.1 only.

    `durable=True` writes to disk as in production, for tests of what survives; without it commits are faster.
    """

    name = "postgres"
    death_signal = signal.SIGQUIT  # PostgreSQL's immediate shutdown

    def __init__(self, *, durable: bool = True, binaries: Postgres | None = None) -> None:
        self._binaries = binaries or find_postgres()
        super().__init__()
        self.durable = durable
        self.port = free_port()
        self.data = self.folder / "data"

    @property
    def version(self) -> str:
        """Of the server, as `15.20`."""
        return self._binaries.version

    @property
    def programs(self) -> Path:
        """The folder its programs come from."""
        return self._binaries.folder

    @property
    def url(self) -> str:
        """The maintenance database, as superuser."""
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        """The URL of one database of this server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        """See `PrivateServer.start`. The first start creates the cluster."""
        if self.running:
            return self
        if not self.data.exists():
            self._create_cluster()
        switch = "on" if self.durable else "off"
        self._process = self._leashed(
            [
                self._binaries.folder / "postgres",
                *("-D", self.data, "-p", str(self.port), "-c", "unix_socket_directories="),
                *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "jit=off"),
                *("-c", "autovacuum_naptime=10min"),
                *("-c", f"fsync={switch}", "-c", f"synchronous_commit={switch}", "-c", f"full_page_writes={switch}"),
            ],
            self._environment(),
        )
        self._await_answer()
        return self

    def stop(self, *, graceful: bool = True) -> None:
        """See `PrivateServer.stop`. Graceful is PostgreSQL's fast shutdown: connections are cut, data is flushed."""
        if not graceful:
            self.kill()
        elif self._process is not None:
            _signal(self._process.pid, signal.SIGINT)
            self._await_end()
            self._process = None

    def psql(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement in autocommit and return its rows, if it has any."""
        with psycopg.connect(self.database_url(database), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def dump(self, url: str, file: Path) -> None:
        """Write a whole database into a file that `pg_restore` reads, as evidence."""
        ours = self.folder / "dump"  # where the server's programs, which run as another user, may write
        self._run(
            [self.programs / "pg_dump", "--format=custom", f"--dbname={url}", f"--file={ours}"], self._environment()
        )
        shutil.move(ours, file)

    def database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.psql(f"create database {name}")
        return self.database_url(name)

    def _create_cluster(self) -> None:
        initdb = [str(self._binaries.folder / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=trust"]
        self._run([*initdb, "--no-sync", "--encoding=UTF8", "--locale=C"], self._environment())

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C", "TZ": "UTC"}

    def _await_answer(self) -> None:
        def answers() -> bool:
            if not self.running:
                raise self._failed("ended while starting")
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError:
                return False
            return True

        try:
            until(answers, timeout=_START_TIMEOUT, what=f"PostgreSQL on port {self.port}")
        except AssertionError as error:
            failure = self._failed(str(error))
            self.kill()
            raise failure from None


class PrivateRabbitMQ(PrivateServer):
    """One RabbitMQ node of its own with its own epmd; guest/guest, 127.0.0.1 only, one scheduler.

    `management=True` adds the management API, with which vhosts come and go in milliseconds; but a graceful stop then
    takes six seconds instead of one.
    """

    name = "rabbitmq"

    def __init__(self, *, management: bool = False, binaries: RabbitMQ | None = None) -> None:
        self._binaries = binaries or find_rabbitmq()
        super().__init__()
        self.port = free_port()
        self.management_port = free_port() if management else None
        self._distribution_port = free_port()
        self._epmd_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._write_configuration()

    @property
    def version(self) -> str:
        """Of the server, as `3.10.8`."""
        return self._binaries.version

    @property
    def programs(self) -> Path:
        """The folder its programs come from."""
        return self._binaries.server.parent

    @property
    def url(self) -> str:
        """The default vhost, as guest."""
        return self.vhost_url("/")

    @property
    def management_url(self) -> str | None:
        """Root of the management API, with credentials; None without one."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}" if self.management_port else None

    def vhost_url(self, vhost: str) -> str:
        """The URL of one vhost of this broker."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{urllib.parse.quote(vhost, safe='')}"

    def start(self) -> Self:
        """See `PrivateServer.start`."""
        if not self.running:
            self.launch()
            self.await_start()
        return self

    def launch(self) -> None:
        """Begin to start it; `await_start` waits for the end of that."""
        self._start_epmd()
        self.log.unlink(missing_ok=True)  # readiness is read from the log, so each start gets its own
        self._process = self._leashed([self._binaries.server], self._environment())

    def await_start(self) -> None:
        """Wait until it answers.

        Raises:
            ServerError: it ended or did not answer in time.
        """

        def started() -> bool:
            if not self.running:
                raise self._failed("ended while starting")
            return b"Server startup complete" in self.log.read_bytes()

        try:
            until(started, timeout=_START_TIMEOUT, what=f"RabbitMQ on port {self.port}")
        except AssertionError as error:
            failure = self._failed(str(error))
            self.kill()
            raise failure from None

    def stop(self, *, graceful: bool = True) -> None:
        """See `PrivateServer.stop`."""
        if not graceful:
            self.kill()
        elif self._process is not None:
            _signal(self._process.pid, signal.SIGTERM)
            self._await_end()
            self._process = None

    def close(self) -> None:
        """See `PrivateServer.close`; the private epmd goes too."""
        super().close()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against this node and return what it prints; it takes a second or two."""
        return self._run([self._binaries.ctl, "--quiet", *arguments], self._environment())

    def settle(self) -> None:
        """Have the broker write down which queues it has; call it between declaring queues and `kill`.

        RabbitMQ writes that register behind, so a queue declared in the last moment before a `kill -9` comes back
        without a leader, and without its confirmed messages (seen on 3.10). That is the broker's limit, not ours.
        """
        self.rabbitmqctl("eval", "[dets:sync(Table) || Table <- dets:all()].")

    def vhost(self) -> str:
        """Create an empty vhost and return its URL."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.rabbitmqctl("add_vhost", name)
        self.rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return self.vhost_url(name)

    def _start_epmd(self) -> None:
        """Our own, in the foreground: Erlang would start one that outlives everything."""
        if self._epmd is not None and self._epmd.poll() is None:
            return
        self._epmd = self._leashed([self._binaries.epmd], self._environment())

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._epmd_port)) == 0

        until(listens, what=f"epmd on port {self._epmd_port}")

    def _write_configuration(self) -> None:
        lines = ["disk_free_limit.absolute = 50MB", "vm_memory_high_watermark.absolute = 1GB"]
        if self.management_port:
            lines += ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self.management_port}"]
            lines += ["management_agent.disable_metrics_collector = true"]  # vhosts and names are all we ask it for
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        plugins = "rabbitmq_management" if self.management_port else ""
        (self.folder / "enabled_plugins").write_text(f"[{plugins}].\n")

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "RABBITMQ_NODENAME": f"antiphon{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


def _unprivileged_user() -> pwd.struct_passwd:
    """Ourselves; when that is root, which PostgreSQL refuses, somebody without rights."""
    return pwd.getpwnam("nobody") if _we_are_root() else pwd.getpwuid(os.geteuid())


def _we_are_root() -> bool:
    return os.geteuid() == 0


def _descendants(root: int) -> list[int]:
    """Every living process below `root`; each PostgreSQL backend leads a group of its own, so groups do not help."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _await_gone(pids: Sequence[int]) -> None:
    """Wait until none of them runs; an unreaped zombie, in a container without an init, has stopped running too."""

    def gone() -> bool:
        listing = subprocess.run(
            ["ps", "-o", "stat=", "-p", ",".join(map(str, pids))], capture_output=True, text=True, check=False
        ).stdout
        return all(state.startswith("Z") for state in listing.split())

    until(gone, timeout=_STOP_TIMEOUT, what=f"processes {pids} to end")

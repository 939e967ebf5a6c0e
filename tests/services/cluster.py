"""Three RabbitMQ nodes on this machine that form one cluster: what is declared on one has a member on each."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from tests.services.private import PrivateRabbitMQ

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_COOKIE = "ANTIPHONTESTS"


class ClusterNode(PrivateRabbitMQ):
    """One node. All share the first one's epmd, and a cookie."""

    def __init__(self, first: ClusterNode | None = None) -> None:
        super().__init__()
        self._first = first or self
        self._epmd_port = self._first._epmd_port
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(_COOKIE)
        cookie.chmod(0o400)
        os.chown(cookie, self._user.pw_uid, self._user.pw_gid)

    @property
    def node(self) -> str:
        """Its name in the cluster."""
        return self._environment()["RABBITMQ_NODENAME"]

    def meets(self, nodes: Sequence[str]) -> None:
        """Before its first start: which nodes make the cluster."""
        lines = ["cluster_formation.peer_discovery_backend = classic_config"]
        lines += [f"cluster_formation.classic_config.nodes.{number} = {node}" for number, node in enumerate(nodes, 1)]
        with (self.folder / "rabbitmq.conf").open("a") as configuration:
            configuration.write("\n".join(lines) + "\n")

    def _start_epmd(self) -> None:
        if self._first is self:
            super()._start_epmd()


class PrivateCluster:
    """A context: three nodes that know each other, all gone when it ends."""

    def __init__(self) -> None:
        first = ClusterNode()
        self.nodes: Sequence[ClusterNode] = [first, ClusterNode(first), ClusterNode(first)]
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        for node in self.nodes:
            self._ending.callback(node.close)
            node.meets([each.node for each in self.nodes])
        try:
            for node in self.nodes:
                node.launch()
            for node in self.nodes:
                node.await_start()
        except BaseException:
            self._ending.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

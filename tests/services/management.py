"""The few calls of RabbitMQ's management API that keep tests apart: vhosts come and go, names are listed."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from base64 import b64encode


class Management:
    """The few calls of RabbitMQ's management API that keep tests apart."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._root = f"{parts.scheme}://{parts.hostname}:{parts.port}/api"
        self._login = b64encode(f"{parts.username}:{parts.password}".encode()).decode()

    def listens(self, port: int) -> bool:
        """Whether the broker is up and takes AMQP connections on `port`, as it knows it."""
        try:
            self._call("GET", f"/health/checks/port-listener/{port}")
        except OSError:  # refused, reset, or an HTTP status that means "not yet"
            return False
        return True

    def create_vhost(self, name: str) -> None:
        """Create an empty vhost with full rights for guest."""
        vhost = urllib.parse.quote(name, safe="")
        self._call("PUT", f"/vhosts/{vhost}", {})
        self._call("PUT", f"/permissions/{vhost}/guest", {"configure": ".*", "write": ".*", "read": ".*"})

    def delete_vhost(self, name: str) -> None:
        """Remove a vhost with everything in it."""
        self._call("DELETE", f"/vhosts/{urllib.parse.quote(name, safe='')}")

    def named(self, vhost: str, prefix: str) -> list[str]:
        """The queues and exchanges of a vhost whose names begin with `prefix`."""
        place = urllib.parse.quote(vhost, safe="")
        found = [self._call("GET", f"/{kind}/{place}") for kind in ("queues", "exchanges")]
        return [name for listing in found for name in _names(listing) if name.startswith(prefix)]

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> object:
        request = urllib.request.Request(  # noqa: S310 - an http URL of our own making
            self._root + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Basic {self._login}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None


def _names(listing: object) -> list[str]:
    assert isinstance(listing, list)
    return [str(entry["name"]) for entry in listing]

"""Where the broker is, as a checked URL, and what a failed attempt to connect there means."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiormq.exceptions import (
    AuthenticationError,
    IncompatibleProtocolError,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
)
from yarl import URL

from messages.errors import BrokerAway, ConfigurationError

if TYPE_CHECKING:
    from transport.rabbitmq.tap import Notice

HEARTBEAT = 15  # seconds; the broker drops a silent peer after two of them, we a silent broker after three
_NOT_ALLOWED = 530


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A broker's URL. Only `shown` may appear in messages: it has no password."""

    url: URL

    @classmethod
    def parse(cls, text: str) -> Address:
        """Check a URL as people paste it.

        Raises:
            ConfigurationError: not an AMQP URL.
        """
        try:
            url = URL(text)
            problem = _problem(url)
        except ValueError as error:
            raise ConfigurationError(f"the broker URL cannot be read: {error}; {_EXAMPLE}") from None
        if problem:
            raise ConfigurationError(f"the broker URL {problem}; {_EXAMPLE}")
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=str(HEARTBEAT))
        return cls(url=url)

    @property
    def shown(self) -> str:
        """`user@host:port/vhost`."""
        port = self.url.port or (5671 if self.url.scheme == "amqps" else 5672)
        return f"{self.url.user or 'guest'}@{self.url.host}:{port}{self.url.path or '/'}"


_EXAMPLE = "it should look like amqp://user:password@host:5672/vhost (amqps:// with TLS)"


def _problem(url: URL) -> str | None:
    if url.scheme not in {"amqp", "amqps"}:
        return f"begins with {url.scheme!r}" if url.scheme else "has no scheme"
    if not url.host:
        return "names no host"
    return None


def refusal(error: BaseException, address: Address, notice: Notice) -> BrokerAway | ConfigurationError:
    """What an attempt to connect that ended in `error` means: wrong for good, or worth another try."""
    where = address.shown
    if isinstance(error, ProbableAuthenticationError):
        return ConfigurationError(f"{where}: the broker refuses this user or password; correct the broker URL")
    if isinstance(error, AuthenticationError):
        return ConfigurationError(f"{where}: the broker offers no way to log in that this URL allows: {error.args}")
    if notice.closed is not None:
        return _closed_while_opening(*notice.closed, where)
    if (fault := _tls_fault(error)) is not None:
        return ConfigurationError(f"{where}: TLS does not come about: {fault}; correct the URL or the certificates")
    if isinstance(error, IncompatibleProtocolError | ProtocolSyntaxError):
        return ConfigurationError(f"{where} does not speak AMQP 0-9-1 ({error}); correct the broker URL")
    return BrokerAway(f"{where}: {said(error)}")


def _closed_while_opening(code: int, text: str, where: str) -> BrokerAway | ConfigurationError:
    if code == _NOT_ALLOWED and "limit" not in text:
        return ConfigurationError(f"{where}: the broker says {text!r}; correct the virtual host or its permissions")
    return BrokerAway(f"{where}: the broker says {text!r}")


def _tls_fault(error: BaseException) -> ssl.SSLError | None:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause
    if isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(cause):
        return cause
    return None


def said(error: BaseException | None) -> str:
    """An error of the client library in words a person can read."""
    if error is None:
        return "closed"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncio.CancelledError):
        return "no heartbeat"  # so the client library says it
    words = [str(word) for word in error.args if word not in (None, "")]
    return words[-1] if words else type(error).__name__

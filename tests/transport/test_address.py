from __future__ import annotations

import ssl

import pytest
from aiormq.exceptions import AMQPConnectionError, AuthenticationError, ProbableAuthenticationError, ProtocolSyntaxError

from messages.errors import BrokerAway, ConfigurationError
from transport.rabbitmq.address import Address, refusal, said
from transport.rabbitmq.tap import Notice

ADDRESS = Address.parse("amqp://shop:s3cret@broker.example:5673/orders")


def notice(closed: tuple[int, str] | None = None) -> Notice:
    made = Notice(lambda _reason: None)
    made.closed = closed
    return made


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://broker", "guest@broker:5672/"),
        ("amqp://u:p@broker:1234/", "u@broker:1234/"),
        ("amqps://u:p@broker/shop?heartbeat=5", "u@broker:5671/shop"),
        ("amqp://u:p%40ss@broker/%2F", "u@broker:5672//"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert Address.parse(url).shown == shown


def test_a_heartbeat_is_asked_for_unless_the_url_names_one() -> None:
    assert ADDRESS.url.query["heartbeat"] == "15"
    assert Address.parse("amqp://broker/?heartbeat=5").url.query["heartbeat"] == "5"


def caused(cause: BaseException) -> AMQPConnectionError:
    error = AMQPConnectionError(*cause.args)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "closed"),
    [
        (ProbableAuthenticationError("ACCESS_REFUSED"), (403, "ACCESS_REFUSED")),
        (AuthenticationError(["EXTERNAL"], ["PLAIN"]), None),
        (ProtocolSyntaxError("b'HTTP/1.'"), None),
        (ProtocolSyntaxError("got Close"), (530, "NOT_ALLOWED - vhost x not found")),
        (caused(ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed")), None),
    ],
)
def test_what_will_not_mend_itself_is_a_matter_of_configuration(
    error: BaseException, closed: tuple[int, str] | None
) -> None:
    refused = refusal(error, ADDRESS, notice(closed))

    assert isinstance(refused, ConfigurationError)
    assert "shop@broker.example:5673/orders" in str(refused)
    assert "s3cret" not in str(refused)


@pytest.mark.parametrize(
    ("error", "closed"),
    [
        (AMQPConnectionError(111, "Connect call failed"), None),
        (TimeoutError(), None),
        (ProtocolSyntaxError("got Close"), (530, "NOT_ALLOWED - access refused: connection limit (5) is reached")),
        (ProtocolSyntaxError("got Close"), (541, "INTERNAL_ERROR - vhost is down")),
        (caused(ssl.SSLError(8, "EOF occurred in violation of protocol")), None),
    ],
)
def test_what_may_mend_itself_means_that_the_broker_is_away(
    error: BaseException, closed: tuple[int, str] | None
) -> None:
    assert isinstance(refusal(error, ADDRESS, notice(closed)), BrokerAway)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "closed"),
        (TimeoutError(), "no answer in time"),
        (AMQPConnectionError(111, "Connect call failed"), "Connect call failed"),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_is_said_in_words(error: BaseException | None, words: str) -> None:
    assert said(error) == words

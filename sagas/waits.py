"""How long to wait: the arithmetic of timeouts, resends and retries. Pure numbers (design: section 4, rule 10)."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagas.definition import Call, Retry

_STEEPEST = 64  # so often it grows at most


def reply_wait(call: Call, sends: int) -> timedelta:
    """How long the n-th send of an attempt waits for its reply: the timeout, growing by the factor up to the cap."""
    ceiling = max(call.timeout, call.retry.cap)
    return _grown(call.timeout, call.retry, sends, ceiling)


def backoff_wait(retry: Retry, transients: int, message_id: str) -> timedelta:
    """The pause after the k-th transient reply; the jitter is drawn from the id of the message sent after it."""
    pause = _grown(retry.backoff, retry, transients, retry.cap)
    return pause * (1 + retry.jitter * _fraction(message_id))


def _grown(first: timedelta, retry: Retry, n: int, ceiling: timedelta) -> timedelta:
    seconds, most = first.total_seconds(), ceiling.total_seconds()
    for _ in range(min(n - 1, _STEEPEST)):  # step by step: a power of the factor may be beyond every float
        if seconds >= most:
            break
        seconds *= retry.factor
    return timedelta(seconds=min(seconds, most))


def _fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(sha256(text.encode()).digest()[:6]) / (1 << 48)

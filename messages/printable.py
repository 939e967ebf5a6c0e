"""Text that came from outside, made fit for a log line, a text column and a terminal."""

from __future__ import annotations

import re

MAX_TEXT = 500
"""Longest error text, in characters."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """The text with control characters, text-direction marks and lone surrogates escaped, at most `limit` characters.

    The result can always be encoded as UTF-8, holds no NUL and no line break; what was cut off is shown by an ellipsis.
    """
    escaped = _UNPRINTABLE.sub(_escape, text[: limit + 1])
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


def in_words(error: BaseException, limit: int = MAX_TEXT) -> str:
    """What was raised, `KeyError: 'x'`, made as fit as `printable` does, whatever the exception does when it is asked.

    Never raises: user code writes exceptions too, and one that cannot tell what is wrong must do no more harm than any.
    """
    name = type(error).__name__
    try:
        text = f"{name}: {error}"
    except BaseException as failure:
        text = f"{name} (no text: its __str__ raised {type(failure).__name__})"
    return printable(text.removesuffix(": "), limit)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")

"""The keywords of the language: which there are, what they must be, and what holds without them.

Type checkers cannot see the keywords of a class statement, and nobody must rely on one, so all are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, cast

from messages import Command, Event
from sagas.definition import Purpose, Retry
from sagas.keys import Alias
from sagas.problems import suggestion

if TYPE_CHECKING:
    from sagas.keys import Carried

DEADLINE = timedelta(days=7)
TIMEOUT = timedelta(seconds=30)
RETRY = {
    Purpose.DO: Retry(),
    Purpose.UNDO: Retry(attempts=10, cap=timedelta(hours=1)),
}

_SAGA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_MOST_AT_ONCE = 1000
_MAX_VERSION = 2**31 - 1

LONGEST = timedelta(days=36_525)
"""Longest time that a saga may be told to wait."""

Complain = Callable[[str], None]
"""Takes `problem; remedy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassKeywords:
    """`class PlaceOrder(Saga, key="order_id", version=1, deadline=timedelta(days=3))`."""

    key: str | None
    version: int
    deadline: timedelta
    name: str
    keys: Mapping[type[Event], Carried]
    aliases: tuple[str, ...]
    key_reuse: bool
    abstract: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallKeywords:
    """The keywords of `@step` and `@….compensation` but for the replies."""

    timeout: timedelta
    retry: Retry
    reply: bool
    in_doubt: Literal["undo", "wait"]
    on_silence: Literal["resend", "new_attempt"]
    pivot: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """What a keyword must be: a test and the words for it."""

    test: Callable[[object], bool]
    remedy: str


def is_span(value: object) -> bool:
    """Whether it is a time to wait: longer than nothing, and short enough to be added to any date."""
    return isinstance(value, timedelta) and timedelta(0) < value <= LONGEST


def _is_pause(value: object) -> bool:
    return isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_keys(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(event, type) and issubclass(event, Event) and _is_carried(carried)
        for event, carried in value.items()
    )


def _is_carried(value: object) -> bool:
    return isinstance(value, (str, Alias)) or callable(value)


def _is_names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) and name for name in value)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Several replies that are needed together."""

    events: tuple[type[Event], ...]


def all_of(*events: type[Event]) -> AllOf:
    """For `success=`: the step is done when each of these events has come, in any order."""
    return AllOf(events)


def _is_successes(value: object) -> bool:
    return _is_replies(value.events if isinstance(value, AllOf) else value)


def _is_replies(value: object) -> bool:
    types = value if isinstance(value, tuple) else (value,)
    return all(isinstance(one, type) and issubclass(one, Event) for one in types)


_FLAG = Rule(lambda value: isinstance(value, bool), "write True or False")
_SPAN = Rule(is_span, "write a positive timedelta of at most 100 years, e.g. timedelta(minutes=5)")
_REPLIES = Rule(_is_replies, "write an Event class or a tuple of them")
_SUCCESSES = Rule(_is_successes, "write an Event class, a tuple of which one is enough, or all_of(...)")

_CLASS = {
    "key": Rule(lambda value: isinstance(value, str) and bool(value), 'write the name of a field, e.g. key="order_id"'),
    "version": Rule(
        lambda value: _is_whole(value) and 1 <= cast("int", value) <= _MAX_VERSION, "write a whole number from 1"
    ),
    "deadline": _SPAN,
    "name": Rule(
        lambda value: isinstance(value, str) and _SAGA_NAME.fullmatch(value) is not None,
        "write at most 100 letters, digits, '_', '.' and '-', beginning with a letter",
    ),
    "keys": Rule(
        _is_keys,
        'write the events that carry the key elsewhere, each with the field, a function of the event, or Alias("…"), '
        'e.g. keys={OrderPlaced: "orderId"}',
    ),
    "aliases": Rule(_is_names, 'write a tuple of names of fields of the saga, e.g. aliases=("payment_reference",)'),
    "key_reuse": _FLAG,
    "abstract": _FLAG,
}
_CALL = {
    "timeout": _SPAN,
    "retry": Rule(lambda value: isinstance(value, Retry), "write Retry(attempts=5, backoff=timedelta(seconds=2))"),
    "success": _SUCCESSES,
    "failure": _REPLIES,
    "transient": _REPLIES,
    "heartbeat": _REPLIES,
    "reply": _FLAG,
}
_STEP = {
    "in_doubt": Rule(lambda value: value in ("undo", "wait"), 'write "undo" or "wait"'),
    "on_silence": Rule(lambda value: value in ("resend", "new_attempt"), 'write "resend" or "new_attempt"'),
    "pivot": _FLAG,
}
_FIELD = Rule(lambda value: isinstance(value, str) and bool(value), "write the name of a field of the event")
_UNFIT = Rule(lambda value: value in ("keep", "ignore", "dead_letter"), 'write "keep", "ignore" or "dead_letter"')
WAIT = {
    "timeout": _SPAN,
    "failure": _REPLIES,
    "by": _FIELD,
    "because": _FIELD,
    "missing": _UNFIT,
    "unexpected": _UNFIT,
}
LISTENER = {
    "missing": _UNFIT,
    "unexpected": Rule(lambda value: value in ("ignore", "dead_letter"), 'write "ignore" or "dead_letter"'),
}
ON = {"after": _SPAN, "elsewhere": _UNFIT, "missing": _UNFIT}
_AFTER = Rule(_is_pause, "write a timedelta of at most 100 years; timedelta(0) is at once")
NOTICE = {"after": _AFTER, "every": _SPAN}
EACH_KEYWORDS = {
    "at_once": Rule(
        lambda value: _is_whole(value) and 1 <= cast("int", value) <= _MOST_AT_ONCE,
        "write a whole number from 1 to 1000",
    ),
    "tolerate": Rule(
        lambda value: (_is_whole(value) and cast("int", value) >= 0) or (isinstance(value, float) and 0 < value < 1),
        "write how many items may fail, or a fraction below 1",
    ),
}
CHILD_KEYWORDS = {
    "undo": Rule(
        lambda value: value is None or (isinstance(value, type) and issubclass(value, Command)),
        "write the Command that undoes what the child did, or None",
    ),
    "timeout": _SPAN,
    "success": _SUCCESSES,
    "failure": _REPLIES,
    "pivot": _FLAG,
}
_KNOWN = {
    Purpose.DO: {**_CALL, **_STEP},
    Purpose.UNDO: _CALL,
}


def class_keywords(class_name: str, given: Mapping[str, object], complain: Complain) -> ClassKeywords:
    """The class keywords, with the defaults in place of what is absent or wrong."""
    good = sound(given, _CLASS, complain)
    if good.get("abstract") is True:
        for keyword in sorted(given.keys() & _CLASS.keys() - {"abstract"}):
            complain(f"an abstract saga takes no {keyword}=; write it in the class that extends this one")
    elif "key" not in given:
        complain(
            'no key=; name the field of the start event that tells one process from another, e.g. key="order_id", '
            "or write abstract=True for a class that others extend"
        )
    return ClassKeywords(
        key=cast("str | None", good.get("key")),
        version=cast("int", good.get("version", 1)),
        deadline=cast("timedelta", good.get("deadline", DEADLINE)),
        name=cast("str", good.get("name", class_name)),
        keys=cast("Mapping[type[Event], Carried]", good.get("keys", {})),
        aliases=cast("tuple[str, ...]", good.get("aliases", ())),
        key_reuse=good.get("key_reuse") is True,
        abstract=good.get("abstract") is True,
    )


def call_keywords(purpose: Purpose, given: Mapping[str, object], complain: Complain) -> CallKeywords:
    """The keywords of a step or compensation, with the defaults in place of what is absent or wrong."""
    good = sound(given, _KNOWN[purpose], complain)
    retry = cast("Retry", good.get("retry", RETRY[purpose]))
    for problem in retry_problems(retry):
        complain(problem)
    return CallKeywords(
        timeout=cast("timedelta", good.get("timeout", TIMEOUT)),
        retry=retry,
        reply=good.get("reply") is not False,
        in_doubt=cast('Literal["undo", "wait"]', good.get("in_doubt", "undo")),
        on_silence=cast('Literal["resend", "new_attempt"]', good.get("on_silence", "resend")),
        pivot=good.get("pivot") is True,
    )


def reply_types(given: Mapping[str, object], kind: str) -> tuple[type[Event], ...]:
    """The reply types that a keyword declares, where it is sound."""
    value = given.get(kind, ())
    if isinstance(value, AllOf) and kind == "success":
        value = value.events
    if not _is_replies(value):
        return ()
    return cast("tuple[type[Event], ...]", value if isinstance(value, tuple) else (value,))


def retry_problems(retry: Retry) -> list[str]:
    """What is wrong with the numbers of a Retry."""
    rules = {
        "attempts": (_is_whole(retry.attempts) and retry.attempts >= 1, "write how many sends in all, at least 1"),
        "backoff": (_is_pause(retry.backoff), "write a timedelta of at most 100 years"),
        "factor": (_is_number(retry.factor) and retry.factor >= 1, "write a number of at least 1"),
        "cap": (_is_pause(retry.cap), "write a timedelta of at most 100 years"),
        "jitter": (_is_number(retry.jitter) and 0 <= retry.jitter <= 1, "write a fraction from 0 to 1"),
    }
    return [f"Retry({name}={getattr(retry, name)!r}); {remedy}" for name, (sound, remedy) in rules.items() if not sound]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def sound(given: Mapping[str, object], rules: Mapping[str, Rule], complain: Complain) -> dict[str, object]:
    """What is known and right of what was given."""
    for keyword in (keyword for keyword in given if keyword not in rules):
        complain(f"unknown keyword {keyword}={suggestion(keyword, rules)}; there are {', '.join(rules)}")
    good = {}
    for keyword, rule in rules.items():
        if keyword not in given:
            continue
        if rule.test(given[keyword]):
            good[keyword] = given[keyword]
        else:
            complain(f"{keyword}={_shown(given[keyword])} will not do; {rule.remedy}")
    return good


def _shown(value: object) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)

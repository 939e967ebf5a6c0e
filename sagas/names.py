"""How places, timers and messages of an instance are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagas.definition import Purpose

ITEMS = "items"
"""Below the field of a list that is worked off item by item: how many there are."""


ANNOUNCEMENTS = "/announcements"
"""The path of everything that an instance announces, so that it comes in order; no step is called so."""

PARENT = "/parent"
"""Where an instance keeps who started it and is to be told of its end; no place of a flow is called so."""

CHILD, RECALLED = "child", "recalled"
"""Below the timer of a step that starts a child: the child's business key, and why it was cancelled if it was."""

MARKER = "antiphon.GiveUp"
"""The name of the message by which a saga gives up waiting; only its own queue takes it."""


def step_name(path: str) -> str:
    """The step that a path belongs to."""
    return path.partition("[")[0]


def timer_name(path: str, purpose: Purpose) -> str:
    """The timer of a step's command."""
    return f"{path}/{purpose}"


def moved_at(timer: str) -> str:
    """Where an instance keeps that an operator has moved or cancelled a timer: its markers from before are stale."""
    return f"{timer}/moved"


def sleep_timer(name: str) -> str:
    """The timer of a rest."""
    return f"{name}/{SLEEP}"


SLEEP = "sleep"


def step_of_timer(timer: str) -> str | None:
    """The place that a timer is of; None for those of the whole instance."""
    path, slash, _ = timer.rpartition("/")
    return path if slash else None

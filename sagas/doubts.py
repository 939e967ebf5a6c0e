"""The steps that nobody answered in time and that are awaited all the same: told to people, and read from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sagas.turn import Turn

DOUBTS = "no answer that settles it in time, and sent again until there is one: "


def doubted(turn: Turn) -> list[str]:
    """Those of an instance."""
    detail = turn.attention.get("in_doubt", "")
    return detail.removeprefix(DOUBTS).split(", ") if detail else []

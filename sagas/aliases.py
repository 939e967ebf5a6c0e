"""The aliases of an instance: which its state gives it, which it has, and what is recorded when that changes.

An instance notes those it has among its choices, so that what stands in the table need not be read to know it. Whether
another instance has a value is not known here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic_core import from_json

from messages.errors import MissingKey
from messages.keys import business_key
from sagas.outcome import Decision, HistoryEntry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sagas.definition import Definition
    from sagas.instance import Instance

ALIAS = "#alias"
"""Below this, among its choices, an instance notes the aliases that it has; the `=` before each makes it no state."""

REFUSED = "alias_refused"
"""The reason for attention while its state gives an instance an alias that it cannot have."""


def aliases_of(instance: Instance) -> dict[str, str]:
    """The aliases that an instance has, by name."""
    below = f"{ALIAS}/"
    return {path[len(below) :]: each[1:] for path, each in instance.choices.items() if path.startswith(below)}


def given(definition: Definition, instance: Instance) -> tuple[dict[str, str], dict[str, str]]:
    """The aliases that its state gives it, and why what stands in the other alias fields can be none."""
    values, unfit = {}, {}
    state = from_json(instance.state) if definition.aliases else {}
    for name in definition.aliases:
        if (value := state.get(name)) is None:
            continue
        try:
            values[name] = business_key(value)
        except MissingKey as error:
            unfit[name] = str(error)
    return values, unfit


def aliased(instance: Instance, has: Mapping[str, str], refused: Mapping[str, str], now: datetime) -> Decision:
    """Record which aliases an instance has from now on, and why it has not got others; nothing where that is as before.

    One that has ended waits for nothing, so that nobody need look why it has not got one.
    """
    choices = {path: each for path, each in instance.choices.items() if not path.startswith(f"{ALIAS}/")}
    choices |= {f"{ALIAS}/{name}": f"={value}" for name, value in has.items()}
    attention = {reason: text for reason, text in instance.attention.items() if reason != REFUSED}
    if refused and not instance.phase.ended:
        attention[REFUSED] = "; ".join(f"{name}: {why}" for name, why in sorted(refused.items()))
    if choices == instance.choices and attention == instance.attention:
        return Decision(instance=instance)
    entry = HistoryEntry(
        seq=instance.seq + 1,
        kind="aliased",
        detail={"aliases": dict(has), **({"refused": dict(refused)} if refused else {})},
    )
    after = replace(instance, seq=entry.seq, updated_at=now, choices=choices, attention=attention)
    return Decision(instance=after, history=(entry,))

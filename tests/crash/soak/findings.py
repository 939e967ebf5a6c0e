"""What a long run has found out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(slots=True, kw_only=True)
class Findings:
    """Everything the report tells. `wrong` is empty when all went well, `never_hit` when the run proves it."""

    command: str
    wrong: list[str] = field(default_factory=list)
    never_hit: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    wire: Counter[str] = field(default_factory=Counter)
    books: dict[str, int] = field(default_factory=dict)  # what the views and the ledgers count at the end
    copies_placed: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    latencies: list[tuple[str, float, float]] = field(default_factory=list)  # status, median and 99th of a hundred
    lives: Mapping[str, int] = field(default_factory=dict)
    memory: list[tuple[float, Sequence[int]]] = field(default_factory=list)  # minute, MiB of each process and of ours
    stall_samples: int = 0
    blind_samples: int = 0  # in which the database was away
    stalls: list[str] = field(default_factory=list)
    replays: list[str] = field(default_factory=list)
    judged: int = 0

    def note_windows(self, hit: Mapping[str, int], missed: Sequence[str]) -> None:
        """What was aimed at again and again and never hit leaves the run without proof."""
        self.missed = len(missed)
        aimed = {each.partition(": ")[2] for each in missed}
        self.never_hit = sorted(aimed - hit.keys())

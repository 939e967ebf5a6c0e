"""What people see while the orders are under way: a bar on a terminal, a line for each order elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from runtime.printing import STATUS_STYLES

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import Console

_HAPPENS = {
    "started": "placed",
    "command_sent": "{step}",
    "command_resent": "{step} once more",
    "step_completed": "{step} done",
    "step_failed": "{step} failed",
    "step_timed_out": "{step} timed out",
    "late_success": "{step} done too late",
    "compensation_sent": "undo {step}",
    "step_compensated": "{step} undone",
}
_BAR = 30


class NoScreen:
    """Nobody looks."""

    def __enter__(self) -> Self:
        """Nothing to show."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Nothing to take away."""

    def placed(self, key: str) -> None:
        """See `runtime.demo.watch.Screen`."""

    def moved(self, key: str, kind: str, step: str | None) -> None:
        """See `runtime.demo.watch.Screen`."""

    def ended(self, key: str, kind: str) -> None:
        """See `runtime.demo.watch.Screen`."""


class Lines(NoScreen):
    """A line for every order that ends."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def ended(self, key: str, kind: str) -> None:
        """See `runtime.demo.watch.Screen`."""
        self._out.print(Text.assemble(f"  {key:<20}  ", (kind, STATUS_STYLES.get(kind, ""))))


class Bar(NoScreen):
    """A bar of the orders that have ended, and what happened last. It is gone when the block is left."""

    def __init__(self, out: Console, total: int) -> None:
        """`total` orders will be placed; those of earlier processes that turn up are added."""
        self._expected = total
        self._placed = 0
        self._progress = Progress(
            TextColumn("  orders"),
            BarColumn(bar_width=_BAR),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            console=out,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        """Show it."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Take it away."""
        self._progress.stop()

    def placed(self, key: str) -> None:
        """See `runtime.demo.watch.Screen`."""
        self._placed += 1
        self._progress.update(self._task, total=max(self._expected, self._placed), description=key)

    def moved(self, key: str, kind: str, step: str | None) -> None:
        """See `runtime.demo.watch.Screen`."""
        if kind in _HAPPENS:
            self._progress.update(self._task, description=f"{key}: {_HAPPENS[kind].format(step=step)}")

    def ended(self, key: str, kind: str) -> None:
        """See `runtime.demo.watch.Screen`."""
        self._progress.update(self._task, advance=1, description=f"{key}: {kind}")


def screen_for(out: Console, total: int) -> NoScreen:
    """The one that suits where the output goes."""
    return Bar(out, total) if out.is_terminal else Lines(out)

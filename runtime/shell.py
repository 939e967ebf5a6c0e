"""How a command is carried out, and the options that several have.

Errors of the tree become one message on stderr with its remedy and an exit code, never a traceback.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from runtime.exits import FAILED, exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
After = Annotated[
    str, typer.Option("--after", metavar="ID", help="Go on behind this one: the last of the page before.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show at most this many.")]


def complain(text: str) -> None:
    """One message for a person, on stderr."""
    first, *rest = text.splitlines() or [""]
    sys.stderr.write("\n".join([f"antiphon: {first}", *(f"  {line}" for line in rest)]) + "\n")


def carry_out(command: Callable[[], int | Coroutine[Any, Any, int]], *, stays: bool = False) -> NoReturn:
    """Run the command, wait for it when it is asynchronous, and exit with its code.

    One that `stays` gets the fastest event loop there is.
    """
    from messages.errors import AntiphonError

    try:
        result = command()
        code = result if isinstance(result, int) else _awaited(result, stays=stays)
    except AntiphonError as error:
        from runtime.addresses import masked

        complain(masked(str(error)))
        code = exit_code(error)
    except KeyboardInterrupt:
        complain("interrupted")
        code = FAILED
    raise typer.Exit(code)


def _awaited(work: Coroutine[Any, Any, int], *, stays: bool) -> int:
    factory = _fastest_loop() if stays else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where the extra of that name is installed; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop

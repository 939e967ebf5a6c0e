"""How a command is carried out, and the options that several have.

Errors of the tree become one message on stderr with its remedy and an exit code, never a traceback.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer

from runtime.arguments import instance_place, place
from runtime.exits import FAILED, READER_GONE, exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_AFTER = "Go on behind this one: the last of the page before."
After = Annotated[int | None, typer.Option("--after", metavar="ID", parser=place, help=_AFTER)]
AfterInstance = Annotated[UUID | None, typer.Option("--after", metavar="ID", parser=instance_place, help=_AFTER)]
ParentInstance = Annotated[
    UUID | None,
    typer.Option("--parent", metavar="ID", parser=instance_place, help="Only those that this instance has started."),
]
Identity = Annotated[str, typer.Argument(metavar="ID|KEY", help="The saga id, or the business key.")]
OfType = Annotated[str, typer.Option("--type", help="The saga type, when a key belongs to several.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the history.")]
Actor = Annotated[str, typer.Option("--actor", help="Who; it stands in the history. Default: the user logged in.")]
RequestId = Annotated[str, typer.Option("--request-id", help="The same one twice is done once. Default: a new one.")]
Revision = Annotated[
    int | None, typer.Option("--revision", help="Only if the instance is still at this revision.", min=1)
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show at most this many.")]


def must_say_why(reason: str) -> None:
    """A reason of blanks is none.

    Raises:
        BadParameter: it is.
    """
    if not reason.strip():
        raise typer.BadParameter("say why; it stands in the history", param_hint="'--reason'")


def complain(text: str, name: str = "antiphon") -> None:
    """One message for a person, on stderr, from whoever is called `name`."""
    first, *rest = text.splitlines() or [""]
    sys.stderr.write("\n".join([f"{name}: {first}", *(f"  {line}" for line in rest)]) + "\n")


def carry_out(command: Callable[[], int | Coroutine[Any, Any, int]], *, stays: bool = False) -> NoReturn:
    """Run the command, and exit with its code. See `outcome`."""
    raise typer.Exit(outcome(command, stays=stays))


def outcome(
    command: Callable[[], int | Coroutine[Any, Any, int]], *, stays: bool = False, name: str = "antiphon"
) -> int:
    """Run the command, wait for it when it is asynchronous; its exit code. `name` is who says what went wrong.

    One that `stays` gets the fastest event loop there is.
    """
    from messages.errors import AntiphonError

    try:
        result = command()
        code = result if isinstance(result, int) else _awaited(result, stays=stays)
        sys.stdout.flush()
    except AntiphonError as error:
        from runtime.addresses import masked

        complain(masked(str(error)), name)
        code = exit_code(error)
    except KeyboardInterrupt:
        complain("interrupted", name)
        code = FAILED
    except OSError as error:
        code = _unwritten(error)
    return code


_WRITING = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def _unwritten(error: OSError) -> int:
    """The exit code when stdout takes nothing more. An error that has another cause is raised."""
    if error.errno not in _WRITING or error.filename is not None:
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would be tried once more at exit
    if isinstance(error, BrokenPipeError):
        return READER_GONE
    complain(f"the output cannot be written: {error.strerror}")
    return FAILED


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

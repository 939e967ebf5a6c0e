"""The command line: names, arguments, help texts and exit codes. What a command does is in `runtime.commands`.

Nothing heavy is imported before a command is chosen. Errors of the tree become one message on stderr with its remedy
and an exit code, never a traceback.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from runtime.exits import CONFIGURATION, FAILED, exit_code
from runtime.ownership import append_current_folder, shadowed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

app = typer.Typer(
    name="antiphon",
    help="Runs business processes as sagas: a command goes out, an event comes back, and when the song breaks off "
    "everything sung so far is taken back in reverse order.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
sagas = typer.Typer(help="See the business processes.", no_args_is_help=True)
dead = typer.Typer(help="See the messages that nobody could process.", no_args_is_help=True)
config = typer.Typer(help="See the settings.", no_args_is_help=True)
app.add_typer(sagas, name="sagas")
app.add_typer(dead, name="dead")
app.add_typer(config, name="config")

RUN_PARTS = frozenset({"consumer", "relay", "timers", "http"})
STATUSES = ("running", "compensating", "completed", "compensated", "parked")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
After = Annotated[
    str, typer.Option("--after", metavar="ID", help="Go on behind this one: the last of the page before.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show at most this many.")]


def main() -> NoReturn:
    """The entry point: check that our packages are ours, then run the command."""
    append_current_folder()
    problem = shadowed()
    if problem is not None:
        complain(problem)
        sys.exit(CONFIGURATION)
    app(prog_name="antiphon")
    raise AssertionError("unreachable: typer exits")


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


def _chosen(only: str) -> frozenset[str]:
    """The parts that --only names; none means all."""
    parts = frozenset(part.strip() for part in only.split(",") if part.strip())
    unknown = parts - RUN_PARTS
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: the parts are {', '.join(sorted(RUN_PARTS))}", param_hint="'--only'"
        )
    return parts


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


@app.command()
def demo(
    orders: Annotated[int, typer.Option("--orders", min=1, max=10_000, help="Place so many orders.")] = 20,
    resume: Annotated[
        bool, typer.Option("--resume", help="Place none; finish what a demo that was killed had begun.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show it: one process, SQLite, no server.

    Places orders that succeed, fail and time out, in ./antiphon-demo.db, and tells what happened."""
    from runtime.commands import demo as command

    carry_out(lambda: command.demo(orders, resume=resume, as_json=as_json))


@app.command()
def run(
    only: Annotated[
        str, typer.Option("--only", metavar="PARTS", help="Comma list of consumer, relay, timers, http; default all.")
    ] = "",
) -> None:
    """Run the sidecar until SIGTERM.

    That is the consumer, the timers, the relay and the health endpoints, or those that --only names."""
    chosen = _chosen(only)
    from runtime.commands import run as command

    carry_out(lambda: command.run(chosen), stays=True)


@app.command()
def participant(names: Annotated[list[str], typer.Argument(metavar="NAME", help="Which participants.")]) -> None:
    """Run Python participants until SIGTERM."""
    from runtime.commands import run as command

    carry_out(lambda: command.participant(names), stays=True)


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when something is to be done.")
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it (PostgreSQL).")] = False,
) -> None:
    """Bring the database schema up to date.

    Safe when two start at once."""
    from runtime.commands import migrate as command

    carry_out(lambda: command.migrate(check=check, sql=sql))


@app.command()
def publish(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The message's name, such as ordering.OrderPlaced.")],
    body: Annotated[str, typer.Argument(metavar="JSON", help="The body, a JSON object; - reads it from stdin.")],
    message_id: Annotated[
        str, typer.Option("--message-id", help="Its identity: the same one again changes nothing. Default: a new one.")
    ] = "",
) -> None:
    """Send an event or a command.

    It goes through the outbox; its message id is printed."""
    from runtime.commands import publish as command

    carry_out(lambda: command.publish(name, body, message_id))


@sagas.command("list")
def sagas_list(
    *,
    status: Annotated[
        str, typer.Option("--status", metavar="STATUS", help=f"Only those that are {', '.join(STATUSES)}.")
    ] = "",
    saga_type: Annotated[str, typer.Option("--type", help="Only this saga type.")] = "",
    attention: Annotated[bool, typer.Option("--attention", help="Only those that want an operator.")] = False,
    limit: Limit = 50,
    after: After = "",
    as_json: Json = False,
) -> None:
    """List instances, the newest first."""
    if status and status not in STATUSES:
        raise typer.BadParameter(f"{status}: a status is one of {', '.join(STATUSES)}", param_hint="'--status'")
    from runtime.commands import sagas as command
    from storage.answers import SagaFilter

    wanted = SagaFilter(saga_type=saga_type or None, status=status or None, attention=attention)
    carry_out(lambda: command.list_instances(wanted, limit=limit, after=after or None, as_json=as_json))


@sagas.command("show")
def sagas_show(
    identity: Annotated[str, typer.Argument(metavar="ID|KEY", help="The saga id, or the business key.")],
    saga_type: Annotated[str, typer.Option("--type", help="The saga type, when a key belongs to several.")] = "",
    as_json: Json = False,
) -> None:
    """Show one instance and its history."""
    from runtime.commands import sagas as command

    carry_out(lambda: command.show(identity, saga_type=saga_type, as_json=as_json))


@dead.command("list")
def dead_list(limit: Limit = 50, after: After = "", as_json: Json = False) -> None:
    """List the dead letters that nobody has dealt with, the newest first."""
    from runtime.commands import dead as command

    carry_out(lambda: command.list_letters(limit=limit, after=after or None, as_json=as_json))


@dead.command("show")
def dead_show(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The dead letter's id.")], as_json: Json = False
) -> None:
    """Show one dead letter as it arrived."""
    from runtime.commands import dead as command

    carry_out(lambda: command.show(identity, as_json=as_json))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check everything and say what to do.

    That is settings, modules, database, schema, instances, lag, broker, and who reads each queue."""
    from runtime.commands import doctor as command

    carry_out(lambda: command.doctor(as_json=as_json))


@config.command("show")
def config_show(as_json: Json = False) -> None:
    """Show the settings and where they come from.

    Passwords are masked."""
    from runtime.commands import config as command

    carry_out(lambda: command.show(as_json=as_json))


@app.command()
def version(as_json: Json = False) -> None:
    """Show the versions."""
    from runtime.commands import config as command

    carry_out(lambda: command.version(as_json=as_json))

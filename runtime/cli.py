"""The command line: names, arguments, help texts and exit codes. What a command does is in `runtime.commands`.

Nothing heavy is imported before a command is chosen. The commands on dead letters are in `runtime.cli_dead`, those on
definitions in `runtime.cli_definitions`, those on timers in `runtime.cli_timers`.
"""

from __future__ import annotations

import os
import sys
from inspect import signature
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from runtime.cli_dead import dead
from runtime.cli_definitions import check, definitions
from runtime.cli_timers import timers
from runtime.exits import CONFIGURATION, FAILED
from runtime.ownership import append_current_folder, shadowed
from runtime.shell import (
    Actor,
    After,
    AfterInstance,
    Identity,
    Json,
    Limit,
    OfType,
    ParentInstance,
    Reason,
    RequestId,
    Revision,
    carry_out,
    complain,
    must_say_why,
)

app = typer.Typer(
    name="antiphon",
    help="Runs business processes as sagas: a command goes out, an event comes back, and when the song breaks off "
    "everything sung so far is taken back in reverse order.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
sagas = typer.Typer(help="See and repair the business processes.", no_args_is_help=True)
held = typer.Typer(help="See the messages that wait until they can be applied.", no_args_is_help=True)
config = typer.Typer(help="See the settings.", no_args_is_help=True)
app.add_typer(sagas, name="sagas")
app.add_typer(timers, name="timers")
app.add_typer(held, name="held")
app.add_typer(dead, name="dead")
app.add_typer(config, name="config")
app.add_typer(definitions, name="definitions")

RUN_PARTS = frozenset({"consumer", "relay", "timers", "http"})
HELD_REASONS = ("early", "unawaited", "awaited", "paused", "version")
MOST_PROCESSES = 100
"""More than one machine has use for: PostgreSQL alone would need a thousand connections."""

STATUSES = ("running", "compensating", "completed", "compensated", "parked")


def main() -> NoReturn:
    """The entry point: check that our packages are ours, then run the command."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- until the process ends
    if sys.stdout is None:
        complain("there is nowhere to print to: standard output is closed")
        sys.exit(FAILED)
    append_current_folder()
    problem = shadowed()
    if problem is not None:
        complain(problem)
        sys.exit(CONFIGURATION)
    app(prog_name="antiphon")
    raise AssertionError("unreachable: typer exits")


def _print_versions(wanted: bool) -> None:
    if wanted:
        version()


@app.callback()
def options(
    *,
    versions: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_versions, help="Show the versions and end.")
    ] = False,
) -> None:
    """What stands before a command."""


def _chosen(only: str) -> frozenset[str]:
    """The parts that --only names; none means all."""
    parts = frozenset(part.strip() for part in only.split(",") if part.strip())
    unknown = parts - RUN_PARTS
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: the parts are {', '.join(sorted(RUN_PARTS))}", param_hint="'--only'"
        )
    return parts


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
    processes: Annotated[
        int,
        typer.Option(
            "--processes", metavar="N", min=1, max=MOST_PROCESSES, help="Run so many of them here, under one parent."
        ),
    ] = 1,
) -> None:
    """Run the sidecar until SIGTERM.

    That is the consumer, the timers, the relay and the health endpoints, or those that --only names."""
    chosen = _chosen(only)
    if processes > 1:
        _run_several(processes, chosen)
    from runtime.commands import run as command

    carry_out(lambda: command.run(chosen), stays=True)


def _run_several(processes: int, chosen: frozenset[str]) -> NoReturn:
    if chosen == {"http"}:
        raise typer.BadParameter("--only http leaves them nothing to do", param_hint="'--processes'")
    from runtime.commands import processes as command

    carry_out(lambda: command.run(processes, chosen))


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
    key: Annotated[str, typer.Option("--key", help="Only those of this business key or, without any, alias.")] = "",
    attention: Annotated[bool, typer.Option("--attention", help="Only those that want an operator.")] = False,
    parent: ParentInstance = None,
    children: Annotated[bool, typer.Option("--children", help="Only those that another saga started.")] = False,
    limit: Limit = 50,
    after: AfterInstance = None,
    as_json: Json = False,
) -> None:
    """List instances, the newest first."""
    if status and status not in STATUSES:
        raise typer.BadParameter(f"{status}: a status is one of {', '.join(STATUSES)}", param_hint="'--status'")
    from runtime.commands import sagas as command
    from storage.answers import SagaFilter

    wanted = SagaFilter(
        saga_type=saga_type or None,
        status=status or None,
        key=key or None,
        attention=attention,
        parent=parent,
        children=children,
    )
    carry_out(lambda: command.list_instances(wanted, limit=limit, after=after, as_json=as_json))


@sagas.command("show")
def sagas_show(
    identity: Identity,
    saga_type: OfType = "",
    as_json: Json = False,
) -> None:
    """Show one instance and its history."""
    from runtime.commands import sagas as command

    carry_out(lambda: command.show(identity, saga_type=saga_type, as_json=as_json))


@sagas.command("query")
def sagas_query(
    identity: Identity,
    name: Annotated[str, typer.Argument(metavar="QUERY", help="The method of the saga that answers.")],
    saga_type: OfType = "",
) -> None:
    """Ask an instance; what its @query answers is printed as JSON."""
    from runtime.commands import query as command

    carry_out(lambda: command.query(identity, name, saga_type=saga_type))


_Step = Annotated[str, typer.Argument(metavar="STEP", help="The step; needed when several are possible.")]


def _action(action: str, help_text: str, *, of_a_step: bool = True) -> None:
    """A command that concerns one step of an instance, or the whole of it."""

    def command(
        *,
        identity: Identity,
        step: _Step = "",
        reason: Reason,
        saga_type: OfType = "",
        actor: Actor = "",
        request_id: RequestId = "",
        revision: Revision = None,
        as_json: Json = False,
    ) -> None:
        must_say_why(reason)
        from runtime.commands import operate
        from sagas.outcome import Action

        request = operate.Request(
            action=Action(action),
            identity=identity,
            step=step,
            saga_type=saga_type,
            reason=reason,
            actor=actor,
            request_id=request_id,
            revision=revision,
        )
        carry_out(lambda: operate.operate(request, as_json=as_json))

    whole = signature(command, eval_str=True)
    taken = [each for each in whole.parameters.values() if of_a_step or each.name != "step"]
    command.__signature__ = whole.replace(parameters=taken)  # type: ignore[attr-defined]
    sagas.command(action, help=help_text)(command)


_action("cancel", "Turn an instance back: what it did is undone, the last first.", of_a_step=False)
_action("retry", "Let an instance go on where it stands still, or send its open command at once.")
_action("skip", "Go on without a step, or without undoing one. The instance counts it.")
_action("resolve", "Say that an undo was done by hand. The instance counts it.")
_action("undo", "Send the undo of an effect that came too late to be undone (attention: orphaned effect).")
_action("pause", "Let an instance stand still: it sends nothing, and what arrives for it is held.", of_a_step=False)
_action("resume", "Let a paused instance go on; what was held for it is applied, in order of arrival.", of_a_step=False)


@held.command("list")
def held_list(
    *,
    saga_type: Annotated[str, typer.Option("--type", help="Only for this saga type.")] = "",
    reason: Annotated[
        str, typer.Option("--reason", metavar="REASON", help=f"Only those that are held as {', '.join(HELD_REASONS)}.")
    ] = "",
    limit: Limit = 50,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the messages that cannot be applied yet, the oldest first."""
    if reason and reason not in HELD_REASONS:
        raise typer.BadParameter(f"{reason}: a reason is one of {', '.join(HELD_REASONS)}", param_hint="'--reason'")
    from runtime.commands import held as command
    from storage.answers import HeldFilter

    wanted = HeldFilter(saga_type=saga_type or None, reason=reason or None)
    carry_out(lambda: command.list_held(wanted, limit=limit, after=after, as_json=as_json))


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called, as a class is: RefundOrder.")],
    *,
    steps: Annotated[
        list[str] | None, typer.Option("--step", metavar="STEP", help="A step, such as pay_back; again for the next.")
    ] = None,
    package: Annotated[
        str, typer.Option("--package", help="Your package, made if need be. Default: the catalogs of a checkout.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would be written.")] = False,
) -> None:
    """Write a new business process.

    That is messages, saga, participants and a test, which run as they are."""
    from runtime.commands import new as command
    from runtime.scaffold.files import package_problem
    from runtime.scaffold.names import process

    try:
        made = process(name, tuple(steps or ()))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    problem = package_problem(package or made.module, Path.cwd())
    if problem is not None:
        raise typer.BadParameter(problem, param_hint="'--package'" if package else "NAME")
    carry_out(lambda: command.new(command.Wanted(process=made, package=package, dry_run=dry_run)))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check everything and say what to do.

    That is settings, modules, database, schema, instances, lag, broker, and who reads each queue."""
    from runtime.commands import doctor as command

    carry_out(lambda: command.doctor(as_json=as_json))


app.command()(check)


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

"""The command line of definitions and of the look ahead: names, arguments and help texts; see `runtime.cli`."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from runtime.addresses import database_address
from runtime.arguments import seconds
from runtime.shell import Json, carry_out

definitions = typer.Typer(help="See the versions of the sagas, here and in the database.", no_args_is_help=True)

_Type = Annotated[str, typer.Argument(metavar="TYPE", help="The saga type.")]
_Needed = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="Its version.")]


@definitions.command("list")
def list_versions(as_json: Json = False) -> None:
    """List the versions and what lives on each.

    That is every version that a module here defines, that was recorded, or on which an instance stands."""
    from runtime.commands import definitions as command

    carry_out(lambda: command.list_versions(as_json=as_json))


@definitions.command("show")
def show(
    saga_type: _Type,
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", min=1, help="Its version. Default: the one that starts new instances."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show one version as it would run here.

    That is its flow, and for each step what it sends, how long it waits and how often it tries."""
    from runtime.commands import definitions as command

    carry_out(lambda: command.show(saga_type, version, as_json=as_json))


@definitions.command("diff")
def diff(
    saga_type: _Type,
    old: Annotated[
        int | None, typer.Argument(metavar="[OLD]", min=1, help="Only this version; with NEW, the one to begin from.")
    ] = None,
    new: Annotated[int | None, typer.Argument(metavar="[NEW]", min=1, help="The version to compare OLD with.")] = None,
    as_json: Json = False,
) -> None:
    """Show what has changed, and what is refused.

    That is in the versions defined here since they were recorded, or from OLD to NEW. Exits with 1 when a change is
    refused: it needs a new version."""
    from runtime.commands import definitions as command

    carry_out(lambda: command.diff(saga_type, old, new, as_json=as_json))


@definitions.command("drain")
def drain(
    saga_type: _Type,
    version: _Needed,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing needs it.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="DURATION", parser=seconds, help="Wait at most so long, such as 30m."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show whether a class may be removed.

    Its version may be needed by live instances, held messages and open dead letters. Exits with 0 when nothing needs
    it, with 75 when something still does."""
    from runtime.commands import drain as command

    within = timeout if timeout is not None else math.inf if wait else None
    carry_out(lambda: command.drain(saga_type, version, within=within, as_json=as_json))


@definitions.command("migrate")
def migrate(
    saga_type: _Type,
    old: Annotated[int, typer.Argument(metavar="OLD", min=1, help="The version on which they stand.")],
    *,
    new: Annotated[
        int | None, typer.Option("--to", metavar="NEW", min=1, help="Default: the version that starts new instances.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Move at most so many.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the history.")] = "",
    actor: Annotated[
        str, typer.Option("--actor", help="Who; it stands in the history. Default: the user logged in.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Let live instances go on under a newer version.

    Its class says how, with @migrate(OLD); that of the old version need not be there any more. What cannot be moved now
    is left as it is, and told. Exits with 0 when nothing stands on the old version any more, with 75 when something
    does."""
    if not dry_run and not reason.strip():
        raise typer.BadParameter("say why; it stands in the history", param_hint="'--reason'")
    from runtime.commands import migrate_instances as command

    request = command.Request(
        saga_type=saga_type, old=old, new=new, dry_run=dry_run, limit=limit, reason=reason, actor=actor
    )
    carry_out(lambda: command.migrate(request, as_json=as_json))


def check(
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="DATABASE_URL",
            help="The database to look at; - reads its address from stdin, where no other process sees the password.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Try a release: what would break?

    The code of this process is put before every live instance, held message and open dead letter of a database, and
    nothing is changed. Exits with 1 when something would break."""
    if not against:
        raise typer.BadParameter(
            "say on which database the new code is to run: antiphon check --against postgresql://user@host/database",
            param_hint="'--against'",
        )
    try:
        address = database_address(sys.stdin.readline() if against == "-" else against)
    except ValueError as error:
        raise typer.BadParameter(f"it {error}", param_hint="'--against'") from None
    from runtime.commands import check as command

    carry_out(lambda: command.check(address, as_json=as_json))

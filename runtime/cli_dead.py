"""The command line of dead letters: names, arguments and help texts; see `runtime.cli`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from runtime.arguments import job_id, letter_id, time_text
from runtime.shell import After, Json, Limit, carry_out
from runtime.wanted import Wanted

dead = typer.Typer(help="See, replay and discard the messages that nobody could process.", no_args_is_help=True)

_Body: TypeAlias = Callable[..., None]

STATUSES = ("open", "replayed", "discarded", "all")

_Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", parser=letter_id, help="Dead letters by their ids.")]
_Reason = Annotated[str, typer.Option("--with-reason", "--reason", help="Only those dead-lettered for this reason.")]
_WithReason = Annotated[str, typer.Option("--with-reason", help="Only those dead-lettered for this reason.")]
_ErrorClass = Annotated[str, typer.Option("--error-class", help="Only those with this class of error.")]
_Name = Annotated[str, typer.Option("--name", help="Only messages of this name.")]
_Consumer = Annotated[
    str, typer.Option("--consumer", help="Only for this saga type, participant.NAME, or queue of somebody else's.")
]
_Saga = Annotated[str, typer.Option("--saga", metavar="ID|KEY", help="Only of this instance.")]
_Status = Annotated[str, typer.Option("--status", help=f"Only those that are {', '.join(STATUSES)}.")]
_Since = Annotated[
    str,
    typer.Option(
        "--since",
        metavar="WHEN",
        parser=time_text,
        help="Only what came since: a time (ISO 8601), or how long ago (2h).",
    ),
]
_Until = Annotated[
    str, typer.Option("--until", metavar="WHEN", parser=time_text, help="Only what came before, written likewise.")
]
_All = Annotated[bool, typer.Option("--all", help="Every open dead letter.")]
_Most = Annotated[int | None, typer.Option("--limit", min=1, help="At most this many, those first that came first.")]
_Dry = Annotated[bool, typer.Option("--dry-run", help="Say what would become of each, and change nothing.")]
_Actor = Annotated[str, typer.Option("--actor", help="Who; it is recorded. Default: the user logged in.")]


def _choosing(*, ids: bool = True, status: str | None = None) -> Callable[[_Body], _Body]:
    """Let a command be told which letters, by ids and filters; it gets them as `wanted`.

    `status` is the default of a filter by that, where there is one; empty stands for all of those named by id, or the
    open ones. Where --reason is not taken for why it is done, it is another word for --with-reason.
    """

    def decorate(command: _Body) -> _Body:
        own = signature(command, eval_str=True).parameters
        filters: dict[str, Any] = {
            "with_reason": _WithReason if "reason" in own else _Reason,
            "error_class": _ErrorClass,
            "name": _Name,
            "consumer": _Consumer,
            "saga": _Saga,
            **({} if status is None else {"status": _Status}),
            "since": _Since,
            "until": _Until,
        }

        @wraps(command)
        def whole(**given: Any) -> None:  # noqa: ANN401
            named = tuple(given.pop("ids", None) or ())
            words = {name: given.pop(name) for name in filters}
            words["reason"] = words.pop("with_reason")
            words["status"] = _status(words.get("status") or ("all" if named and status is not None else "open"))
            command(wanted=Wanted(ids=named, **words), **given)

        added = [_option("ids", _Ids, None)] if ids else []
        added += [_option(name, kind, (status if name == "status" else "")) for name, kind in filters.items()]
        rest = [each for each in own.values() if each.name != "wanted"]
        whole.__signature__ = Signature([*added, *rest])  # type: ignore[attr-defined]
        return whole

    return decorate


def _option(name: str, kind: object, default: object) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)


@dead.command("groups")
@_choosing(ids=False, status="open")
def groups(
    *,
    wanted: Wanted,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Put dead letters that are alike together: by reason, class of error, message and consumer."""
    from runtime.commands import dead as command

    carry_out(lambda: command.groups(wanted, limit=limit, as_json=as_json))


@dead.command("list")
@_choosing(status="")
def list_letters(
    *,
    wanted: Wanted,
    limit: Limit = 50,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List dead letters, the newest first; without --status or ids those that nobody has dealt with."""
    from runtime.commands import dead as command

    carry_out(lambda: command.list_letters(wanted, limit=limit, after=after, as_json=as_json))


@dead.command("show")
def show(
    identity: Annotated[int, typer.Argument(metavar="ID", parser=letter_id, help="The dead letter's id.")],
    body: Annotated[bool, typer.Option("--body", help="Print the bytes of its body, and nothing else.")] = False,
    as_json: Json = False,
) -> None:
    """Show one dead letter as it arrived, and what was done with it."""
    if body and as_json:
        raise typer.BadParameter("one of --body and --json", param_hint="'--body'")
    from runtime.commands import dead as command

    carry_out(lambda: command.show(identity, body=body, as_json=as_json))


@dead.command("export")
@_choosing(status="")
def export(
    *,
    wanted: Wanted,
    limit: _Most = None,
    output: Annotated[str, typer.Option("--output", metavar="FILE", help="Write there instead of to stdout.")] = "",
) -> None:
    """Write dead letters as JSON lines, complete and without loss, those first that came first."""
    from runtime.commands import dead as command

    carry_out(lambda: command.export(wanted, limit=limit, output=output))


@dead.command("replay")
@_choosing()
def replay(
    *,
    wanted: Wanted,
    every: _All = False,
    limit: _Most = None,
    dry_run: _Dry = False,
    rate: Annotated[float | None, typer.Option("--rate", min=0.001, help="At most so many per second.")] = None,
    edit: Annotated[
        str,
        typer.Option("--edit", metavar="FILE", help="For one letter: its new body, or its edited export; - is stdin."),
    ] = "",
    resume: Annotated[
        int | None,
        typer.Option(
            "--resume", metavar="JOB", parser=job_id, help="Go on with a replay, and try what failed once more."
        ),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")] = "",
    actor: _Actor = "",
    as_json: Json = False,
) -> None:
    """Have dead letters processed once more, in the database, and say what became of each.

    One first, then ten, then the rest: it stops where everything fails again. It survives its process (--resume)."""
    from runtime.commands import replay as command

    if resume is not None:
        _alone(wanted, all=every, limit=limit, dry_run=dry_run, edit=edit, reason=reason, actor=actor)
        carry_out(lambda: command.resume(resume, rate=rate, as_json=as_json))
    _chosen(wanted, every=every)
    if edit and len(wanted.ids) != 1:
        raise typer.BadParameter("it takes exactly one dead letter, by its id", param_hint="'--edit'")
    if dry_run and rate is not None:
        raise typer.BadParameter("a dry run is not slowed down; leave it out", param_hint="'--rate'")
    given = _read(edit) if edit else None
    asked = command.Asked(wanted=wanted, limit=limit, reason=reason, actor=actor)
    if given is not None:
        carry_out(lambda: command.replay_edited(asked, given, dry_run=dry_run, as_json=as_json))
    if dry_run:
        carry_out(lambda: command.foresee(asked, as_json=as_json))
    carry_out(lambda: command.replay(asked, rate=rate, as_json=as_json))


@dead.command("discard")
@_choosing()
def discard(
    *,
    wanted: Wanted,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded. Needed but for a dry run.")] = "",
    every: _All = False,
    limit: _Most = None,
    dry_run: _Dry = False,
    actor: _Actor = "",
    as_json: Json = False,
) -> None:
    """Say of dead letters that nobody is to process them; they stay visible, with who, when and why."""
    if not (reason.strip() or dry_run):
        raise typer.BadParameter("say why; it is recorded", param_hint="'--reason'")
    from runtime.commands import replay as command

    _chosen(wanted, every=every)
    asked = command.Asked(wanted=wanted, limit=limit, reason=reason, actor=actor)
    carry_out(lambda: command.discard(asked, dry_run=dry_run, as_json=as_json))


@dead.command("jobs")
def jobs(
    job: Annotated[
        int | None, typer.Argument(metavar="JOB", parser=job_id, help="Only this one, with its letters.")
    ] = None,
    *,
    limit: Limit = 50,
    after: After = None,
    as_json: Json = False,
) -> None:
    """List the replays, the newest first; or show one with the verdict on each letter."""
    from runtime.commands import replay as command

    if job is None:
        carry_out(lambda: command.jobs(limit=limit, after=after, as_json=as_json))
    carry_out(lambda: command.job(job, as_json=as_json))


def _status(status: str) -> str | None:
    if status not in STATUSES:
        raise typer.BadParameter(f"{status}: a status is one of {', '.join(STATUSES)}", param_hint="'--status'")
    return None if status == "all" else status


def _chosen(wanted: Wanted, *, every: bool) -> None:
    """Ids, or a filter, or all: exactly one of them, so that nobody replays more than they meant to."""
    given = [bool(wanted.ids), bool(wanted.filters), every]
    if not any(given):
        raise typer.BadParameter("name dead letters by their ids, give a filter, or --all", param_hint="'ID...'")
    if sum(given) > 1:
        raise typer.BadParameter("ids, a filter and --all exclude each other; give one of them", param_hint="'ID...'")


def _alone(wanted: Wanted, **others: object) -> None:
    """A job that is resumed has its letters, its reason and who began it."""
    too_much = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if wanted.ids or wanted.filters or too_much:
        named = ", ".join([*map(str, wanted.ids), *wanted.filters[::2], *too_much])
        raise typer.BadParameter(
            f"a job knows its letters and why they are replayed; leave out {named}", param_hint="'--resume'"
        )


def _read(edit: str) -> bytes:
    if edit == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(edit).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{edit}: {error.strerror or error}", param_hint="'--edit'") from None

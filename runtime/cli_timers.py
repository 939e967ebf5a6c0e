"""The command line of timers: names, arguments and help texts; see `runtime.cli`."""

from __future__ import annotations

from datetime import datetime, timedelta
from inspect import signature
from typing import Annotated

import typer

from runtime.arguments import duration, instant, timer_place_text
from runtime.shell import Actor, Identity, Json, Limit, OfType, Reason, RequestId, Revision, carry_out, must_say_why

timers = typer.Typer(help="See and change what happens by itself, and when.", no_args_is_help=True)

_Timer = Annotated[str, typer.Argument(metavar="TIMER", help="Its name, as antiphon timers list has it.")]
_After = Annotated[
    str,
    typer.Option(
        "--after", metavar="PLACE", parser=timer_place_text, help="Go on behind this one: the last of the page before."
    ),
]
_At = Annotated[
    datetime | None,
    typer.Option("--at", metavar="TIME", parser=instant, help="When (ISO 8601), local unless it names its zone."),
]
_In = Annotated[
    timedelta | None, typer.Option("--in", metavar="DURATION", parser=duration, help="After how long: 90s, 5m, 2h, 8d.")
]


@timers.command("list")
def list_timers(
    *,
    identity: Annotated[str, typer.Argument(metavar="ID|KEY", help="Only those of this instance.")] = "",
    saga_type: Annotated[str, typer.Option("--type", help="Only those of this saga type.")] = "",
    limit: Limit = 50,
    after: _After = "",
    as_json: Json = False,
) -> None:
    """List the timers that are set, those first that are due first."""
    from runtime.commands import timers as command

    carry_out(lambda: command.list_timers(identity, saga_type, limit=limit, after=after, as_json=as_json))


def _action(action: str, help_text: str, *, moves: bool = False) -> None:
    """A command that concerns one timer; one that `moves` it is told to when."""

    def command(
        *,
        identity: Identity,
        timer: _Timer,
        at: _At = None,
        within: _In = None,
        reason: Reason,
        saga_type: OfType = "",
        actor: Actor = "",
        request_id: RequestId = "",
        revision: Revision = None,
        as_json: Json = False,
    ) -> None:
        must_say_why(reason)
        if moves and (at is None) == (within is None):
            raise typer.BadParameter("say either when or after how long", param_hint="'--at' / '--in'")
        from runtime.commands import operate
        from sagas.outcome import Action

        request = operate.Request(
            action=Action(f"{action}_timer"),
            identity=identity,
            step="",
            saga_type=saga_type,
            reason=reason,
            actor=actor,
            request_id=request_id,
            revision=revision,
            timer=timer,
            due=within if at is None else at,
        )
        carry_out(lambda: operate.operate(request, as_json=as_json))

    whole = signature(command, eval_str=True)
    taken = [each for each in whole.parameters.values() if moves or each.name not in ("at", "within")]
    command.__signature__ = whole.replace(parameters=taken)  # type: ignore[attr-defined]
    timers.command(action, help=help_text)(command)


_action("fire", "Have a timer do now what it would do when it is due.")
_action("reschedule", "Have a timer due at another time: --at or --in. The deadline moves with its timer.", moves=True)
_action("cancel", "Have a timer never come: the timeout of a wait, a reminder, an escalation, the deadline.")

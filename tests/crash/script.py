"""What a participant does with an order's commands: written into the order's id, or drawn from a seed.

An order's id may end in directives: `o-7~payment=fail~stock.undo=late:2`. Each names a participant, for its undo with
`.undo`, and a word with an optional number behind a colon:

| word          | what the participant does                                                                     |
|---------------|-----------------------------------------------------------------------------------------------|
| `ok`          | applies the effect, answers success                                                           |
| `fail[:n]`    | applies nothing, answers its failure (the n-th of several, from 0)                            |
| `transient:n` | answers "try again" to the first n command ids of one idempotency key, then as `ok`           |
| `silent`      | applies the effect and never answers                                                          |
| `deaf`        | applies nothing and never answers                                                             |
| `mute:n`      | applies the effect, leaves the first n arrivals of one command id unanswered, answers the next |
| `late:s`      | applies the effect at once and answers s seconds later                                        |
| `times:n`     | applies the effect, sends its answer n times at once                                          |
| `echo:s`      | applies the effect, answers at once, and again s seconds later                                |
| `contradict`  | applies the effect, answers its failure and, right behind it, success                         |
| `malformed`   | applies the effect, answers what is no JSON under an id of its own, then answers as `ok`      |
| `stranger`    | the same with an answer to a command of another saga                                          |
| `unknown`     | the same with an answer to a command that this saga never sent                                |

Answers of different orders are shuffled by `late`, whose seconds are drawn where the mix asks for it.

Pure: the same order, seed and mix always give the same behaviour, in every process and after every restart.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Purpose = Literal["do", "undo"]
DIRECTIVE = re.compile(r"~(?P<who>\w+)(?P<undo>\.undo)?=(?P<word>[a-z]+)(?::(?P<number>[0-9.]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """The commands one participant takes and the events it answers with, by their wire names.

    Of one that cannot undo `undo` and `undone` are empty; one that never refuses has no `failures`.
    """

    do: str
    done: str
    failures: Sequence[str]
    transient: str | None
    undo: str
    undone: str
    receipt: str  # the field of `done` that carries the participant's own number

    @property
    def commands(self) -> Sequence[str]:
        """What this participant takes."""
        return [command for command in (self.do, self.undo) if command]

    def purpose(self, command: str) -> Purpose:
        """Whether a command does or undoes.

        Raises:
            ValueError: it is none of this participant's commands.
        """
        if command == self.do:
            return "do"
        if command == self.undo:
            return "undo"
        raise ValueError(f"{command} is not a command of this participant ({', '.join(self.commands)})")


TRADES: Mapping[str, Trade] = {
    "stock": Trade(
        do="stock.ReserveStock",
        done="stock.StockReserved",
        failures=("stock.OutOfStock",),
        transient=None,
        undo="stock.ReleaseStock",
        undone="stock.StockReleased",
        receipt="reservation_id",
    ),
    "payment": Trade(
        do="payment.MakePayment",
        done="payment.PaymentCompleted",
        failures=("payment.PaymentDeclined", "payment.CardExpired"),
        transient="payment.PaymentGatewayBusy",
        undo="payment.RefundPayment",
        undone="payment.PaymentRefunded",
        receipt="payment_id",
    ),
    "warehouse": Trade(
        do="warehouse.CreateShippingLabel",
        done="warehouse.ShippingLabelCreated",
        failures=("warehouse.LabelRefused",),
        transient=None,
        undo="warehouse.VoidShippingLabel",
        undone="warehouse.ShippingLabelVoided",
        receipt="tracking_code",
    ),
}
"""The participants of the ordering process, in the order in which a saga calls them."""


def _travel(name: str, *, fails: bool = True, busy: bool = False, undoes: bool = True) -> Trade:
    """They all answer with the same events: whom one answers is told by the command it names."""
    return Trade(
        do=f"{name}.Do",
        done="travel.Done",
        failures=("travel.Failed",) if fails else (),
        transient="travel.Busy" if busy else None,
        undo=f"{name}.Undo" if undoes else "",
        undone="travel.Undone" if undoes else "",
        receipt="receipt",
    )


TRAVEL: Mapping[str, Trade] = {
    **{name: _travel(name) for name in ("plane", "lounge", "train", "inn", "hostel", "car")},
    "cashier": _travel("cashier", undoes=False),
    "post": _travel("post", fails=False, busy=True, undoes=False),
}
"""The participants of `travelling`, whose flow has branches."""

COURT: Mapping[str, Trade] = {
    "clerk": _travel("clerk"),
    **{name: _travel(name, fails=False, undoes=False) for name in ("vault", "herald")},
}
"""The participants of `court`, whose flow waits for what people say."""

REFORM: Mapping[str, Trade] = {**COURT, "scribe": _travel("scribe", fails=False, undoes=False)}
"""Those of `reform`, the next version of it."""

HARBOUR: Mapping[str, Trade] = {
    "pilot": _travel("pilot"),
    "crane": _travel("crane", busy=True),
    "stamp": _travel("stamp"),
    "captain": _travel("captain", undoes=False),
}
"""The participants of `freight`, which works off lists."""

MOVERS: Mapping[str, Trade] = {
    "van": _travel("van"),
    "boxes": _travel("boxes"),
    "carrier": _travel("carrier"),
    "sweeper": _travel("sweeper", fails=False, undoes=False),
    "notary": _travel("notary", undoes=False),
}
"""The participants of `removal`, whose steps are sagas."""

EVERY_TRADE = {**TRADES, **TRAVEL, **REFORM, **HARBOUR, **MOVERS}


class Word(StrEnum):
    """What to do; see the table above."""

    OK = "ok"
    FAIL = "fail"
    TRANSIENT = "transient"
    SILENT = "silent"
    DEAF = "deaf"
    MUTE = "mute"
    LATE = "late"
    TIMES = "times"
    ECHO = "echo"
    CONTRADICT = "contradict"
    MALFORMED = "malformed"
    STRANGER = "stranger"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """A word and its number."""

    word: Word = Word.OK
    number: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Decides a participant's behaviour; `mix` gives each word its share where an order's id says nothing.

    What the mix leaves over to 1 is `ok`. It is drawn for commands that do; those that undo are `ok` unless told.
    """

    seed: int = 0
    mix: Mapping[str, float] = field(default_factory=dict)

    def behaviour(self, order_id: str, participant: str, purpose: Purpose) -> Behaviour:
        """What this participant does with this order's do or undo.

        Raises:
            ValueError: the order's id directs something that participant cannot do.
        """
        told = directives(order_id)
        if (participant, purpose) in told:
            return told[participant, purpose]
        if purpose == "undo" or told or not self.mix:
            return Behaviour()
        return self._draw(order_id, participant)

    def _draw(self, order_id: str, participant: str) -> Behaviour:
        dice = random.Random(f"{self.seed}/{order_id}/{participant}")
        lot = dice.random()
        for word, share in self.mix.items():
            if (lot := lot - share) < 0:
                drawn = Behaviour(word=Word(word), number=_number(Word(word), dice))
                knows = drawn.word is not Word.TRANSIENT or EVERY_TRADE[participant].transient is not None
                return drawn if knows else Behaviour()
        return Behaviour()


def _number(word: Word, dice: random.Random) -> float:
    """How late, how often: a failure is the first of its kind, a copy is one."""
    if word in (Word.LATE, Word.ECHO):
        return round(dice.uniform(0.1, 2.0), 2)
    return {Word.FAIL: 0.0, Word.TIMES: 2.0}.get(word, 1.0)


def directives(order_id: str) -> Mapping[tuple[str, Purpose], Behaviour]:
    """The behaviours an order's id asks for.

    Raises:
        ValueError: a participant, a word or a combination that does not exist.
    """
    found: dict[tuple[str, Purpose], Behaviour] = {}
    for match in DIRECTIVE.finditer(order_id):
        who, purpose = match["who"], "undo" if match["undo"] else "do"
        told = Behaviour(word=Word(match["word"]), number=float(match["number"] or 0))
        found[who, "undo" if match["undo"] else "do"] = _checked(who, purpose, told)
    if order_id.count("~") != len(found):
        raise ValueError(f"{order_id}: a directive reads ~participant[.undo]=word[:number], each one once")
    return found


def _checked(who: str, purpose: str, told: Behaviour) -> Behaviour:
    if who not in EVERY_TRADE:
        raise ValueError(f"no participant {who}; there are {', '.join(EVERY_TRADE)}")
    if told.word is Word.TRANSIENT and (purpose == "undo" or EVERY_TRADE[who].transient is None):
        raise ValueError(f"{who} has no transient reply to {purpose}")
    if told.word in (Word.FAIL, Word.CONTRADICT) and (purpose == "undo" or not EVERY_TRADE[who].failures):
        raise ValueError(f"{who} has no failure reply to {purpose}")
    return told

"""The author's flow values: what `reserve >> when(needs_approval, approve) >> parallel(label, invoice)` makes.

Nothing is judged here: a flow keeps whatever was put into it, so that all that is wrong with a class can be told at
once when it is compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from messages.errors import DefinitionError
from sagas.source import place_of_author

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Answer = TypeVar("Answer")


class Flow:
    """A part of a saga's flow: a step, or several of them joined by `>>`, `parallel`, `when` and `match`."""

    def __rshift__(self, after: Flow, /) -> Flow:
        """First this, then `after`."""
        return Sequence(self, after)

    if not TYPE_CHECKING:  # type checkers are to report `hook >> step`; the class error names it when it runs

        def __rrshift__(self, before: object, /) -> Flow:
            return Sequence(before, self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> NoReturn:
        text = "a flow is annotated; write `flow = reserve >> pay` without an annotation, it is no state field"
        raise DefinitionError(f"saga ({place_of_author()}): {text}")


class Sequence(Flow):
    """Its parts one after the other. `a >> (b >> c)` is the same as `a >> b >> c`."""

    def __init__(self, *parts: object) -> None:
        self._parts = tuple(leaf for part in parts for leaf in leaves(part))


class Parallel(Flow):
    """Its branches side by side, all or the first so many."""

    def __init__(self, branches: tuple[object, ...], first: object) -> None:
        self._branches = branches
        self._first = first


class Alternative(Flow):
    """Its branches, each in place of the one before."""

    def __init__(self, branches: tuple[object, ...]) -> None:
        self._branches = branches


class Choice(Flow):
    """One of its branches, as a decision says. A branch that is None is nothing to do.

    `word` is the one that the author wrote; `cases` are what the decision may answer, and what follows then.
    """

    def __init__(self, word: str, decision: object, cases: object, otherwise: object) -> None:
        self._word = word
        self._decision = decision
        self._cases = cases
        self._otherwise = otherwise


class Loop(Flow):
    """Its body again and again."""

    def __init__(self, body: object, until: object, most: object) -> None:
        self._body = body
        self._until = until
        self._most = most


class Lifecycle(Flow):
    """States, with what is done on entering them."""

    def __init__(self, begins: object, entering: object, final: object) -> None:
        self._begins = begins
        self._entering = entering
        self._final = final


def leaves(flow: object) -> Iterator[object]:
    """What a sequence is made of, in order, whatever else an author put there by mistake; else the flow itself."""
    if isinstance(flow, Sequence):
        yield from flow._parts
    else:
        yield flow


def parallel(*branches: Flow, first: int | None = None) -> Flow:
    """Branches that run side by side: all of them begin at once, and what follows begins when all are done.

    A branch is a step or a flow of its own, `parallel(label, pack >> hand_over)`. When one of them fails, the saga
    turns back: nothing more begins, what is under way is awaited, and all that was done is undone, the branches side by
    side too.

    Args:
        branches: At least two.
        first: What follows begins when so many are done; the others are given up and undone beside it. A branch that
            fails is undone, and the parallel fails only when too few are left.
    """
    return Parallel(branches, first)


def alternative(*branches: Flow) -> Flow:
    """The first branch; if it fails, what was done of it is undone and the next one is tried, and so on.

    The saga runs on meanwhile, and turns back only when the last branch has failed:
    `alternative(ship_by_air, ship_by_sea >> tell_customer)`.
    """
    return Alternative(branches)


def repeat(body: Flow, /, *, until: Callable[[Any], bool], most: int) -> Flow:
    """`body`, and again, until the decision says that it is enough: `repeat(ask >> pause, until=ready, most=10)`.

    The decision is asked whenever the body is done. What each time did is undone, the last time first, when the saga
    turns back.

    Args:
        body: A step or a flow of its own.
        until: A `@decision` that answers True when it is enough.
        most: How often the body is done at most, 1000 times at the longest; then the loop has failed, as a step fails.
    """
    return Loop(body, until, most)


def lifecycle(
    begins: Answer, /, *, entering: Mapping[Answer, Flow] | None = None, final: Iterable[Answer] = ()
) -> Flow:
    """States between which events and time lead, for a process that is not a line: a subscription, an account.

    The methods over which `@on` stands say which way. All states are told by the Enum of which `begins` is a member, or
    by those that are named. The class statement checks that each is reached and can be left, and that it is said what
    becomes of every event in each of them.

    Args:
        begins: The state that it is in first.
        entering: What is done when a state is entered; events are taken when that is done. What fails there turns the
            saga back; what was done in a state that has been left stays done.
        final: The states with which it ends: the flow goes on behind it.
    """
    return Lifecycle(begins, entering, final)


def when(decision: Callable[[Any], bool], then: Flow, /, *, otherwise: Flow | None = None) -> Flow:
    """`then` if the decision says so, else `otherwise`, or nothing.

    The decision is made once, when the flow comes to it, and stands whatever becomes of the state.
    """
    return Choice("when", decision, {True: then, False: otherwise}, None)


def match(
    decision: Callable[[Any], Answer], cases: Mapping[Answer, Flow | None], /, *, otherwise: Flow | None = None
) -> Flow:
    """What the cases have for the decision's answer, else `otherwise`. None is nothing to do.

    Answers are strings, whole numbers, booleans or members of an Enum. Where the decision's annotation lists them all
    (an Enum, a `Literal`), each needs a case or there must be an `otherwise`. The decision is made once.
    """
    return Choice("match", decision, cases, otherwise)

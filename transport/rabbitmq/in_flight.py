"""Publications on their way on one channel, and what the broker's answers mean for them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from transport.interface import Outcome, Publication, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Route: TypeAlias = tuple[str, str, str]
"""(message id, exchange, routing key): all that a returned message says about which publication it was."""


def route_of(publication: Publication) -> Route:
    """The route of a publication."""
    return publication.message.message_id or "", publication.exchange, publication.routing_key


@dataclass(slots=True)
class _Sent:
    publication: Publication
    deadline: float
    returned: str | None = None


class InFlight:
    """The unanswered publications of one channel lifetime; tags count from 1 as the broker counts them.

    Each ends in exactly one call of `end`. The broker sends a return before the confirm of the same message and
    returns in the order of publishing. Two copies on the same route are told apart by that order; were a binding to
    appear between them, their outcomes could be swapped, which is harmless: they are the same message.
    """

    def __init__(self, end: Callable[[Outcome], None]) -> None:
        self._end = end
        self._last = 0
        self._sent: dict[int, _Sent] = {}
        self._tags: dict[Route, list[int]] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, publications: Iterable[Publication], *, deadline: float) -> None:
        """These have been written to the channel, in this order."""
        for publication in publications:
            self._last += 1
            self._sent[self._last] = _Sent(publication, deadline)
            self._tags.setdefault(route_of(publication), []).append(self._last)

    def returned(self, route: Route, reason: str) -> None:
        """The broker gives one back that no queue takes. Its confirm follows and ends it."""
        for tag in self._tags.get(route, ()):
            sent = self._sent[tag]
            if sent.returned is None:
                sent.returned = reason
                return

    def confirmed(self, tag: int, *, multiple: bool, taken: bool) -> None:
        """The broker answers for one, or for all up to it."""
        for answered in self._up_to(tag) if multiple else [tag]:
            sent = self._remove(answered)
            if sent is not None:
                self._end(_answer(sent, taken=taken))

    def expire(self, now: float) -> float | None:
        """End those whose deadline has passed as unknown; say when the next one passes."""
        while self._sent:
            tag = next(iter(self._sent))
            if self._sent[tag].deadline > now:
                return self._sent[tag].deadline
            sent = self._remove(tag)
            if sent is not None:
                self._end(unknown(sent.publication, "the broker did not confirm in time"))
        return None

    def _up_to(self, tag: int) -> list[int]:
        tags = []
        for candidate in self._sent:  # in ascending order, because that is how they were added
            if candidate > tag:
                break
            tags.append(candidate)
        return tags

    def _remove(self, tag: int) -> _Sent | None:
        sent = self._sent.pop(tag, None)
        if sent is not None:
            route = route_of(sent.publication)
            tags = self._tags[route]
            tags.remove(tag)
            if not tags:
                del self._tags[route]
        return sent


def unknown(publication: Publication, reason: str) -> Outcome:
    """It may or may not have arrived."""
    return Outcome(ticket=publication.ticket, verdict=Verdict.UNKNOWN, reason=reason)


def _answer(sent: _Sent, *, taken: bool) -> Outcome:
    ticket = sent.publication.ticket
    if sent.returned is not None:
        return Outcome(ticket=ticket, verdict=Verdict.RETURNED, reason=sent.returned)
    if not taken:
        reason = "the broker could not take it now: a queue is full or has no quorum"
        return Outcome(ticket=ticket, verdict=Verdict.NACKED, reason=reason)
    return Outcome(ticket=ticket, verdict=Verdict.CONFIRMED)

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from messages.envelope import Envelope
from transport import Outcome, Publication, Verdict
from transport.rabbitmq.in_flight import InFlight, route_of


def publication(ticket: int, *, message_id: str | None = None, key: str = "q") -> Publication:
    envelope = Envelope(message_id=message_id or f"m-{ticket}", name="a.B", body=b"{}")
    return Publication(ticket=ticket, exchange="", routing_key=key, envelope=envelope)


def test_one_answer_for_many_ends_all_up_to_it_in_order() -> None:
    ended: list[Outcome] = []
    in_flight = InFlight(ended.append)
    in_flight.add([publication(ticket) for ticket in (10, 11, 12)], deadline=1.0)

    in_flight.confirmed(2, multiple=True, taken=True)
    assert [(one.ticket, one.verdict) for one in ended] == [(10, Verdict.CONFIRMED), (11, Verdict.CONFIRMED)]
    in_flight.confirmed(3, multiple=False, taken=False)
    assert (ended[2].ticket, ended[2].verdict) == (12, Verdict.NACKED)
    in_flight.confirmed(3, multiple=True, taken=True)
    assert len(ended) == 3


def test_a_return_and_the_confirm_that_follows_it_are_one_outcome() -> None:
    ended: list[Outcome] = []
    in_flight = InFlight(ended.append)
    one = publication(1)
    in_flight.add([one], deadline=1.0)

    in_flight.returned(route_of(one), "NO_ROUTE")
    assert ended == []
    in_flight.confirmed(1, multiple=False, taken=True)

    assert ended == [Outcome(ticket=1, verdict=Verdict.RETURNED, reason="NO_ROUTE")]


def test_a_return_of_something_unknown_changes_nothing() -> None:
    ended: list[Outcome] = []
    in_flight = InFlight(ended.append)
    in_flight.add([publication(1)], deadline=1.0)

    in_flight.returned(("m-1", "", "another key"), "NO_ROUTE")
    in_flight.confirmed(1, multiple=False, taken=True)

    assert ended == [Outcome(ticket=1, verdict=Verdict.CONFIRMED)]


def test_what_is_overdue_ends_unknown_and_the_next_deadline_is_told() -> None:
    ended: list[Outcome] = []
    in_flight = InFlight(ended.append)
    in_flight.add([publication(1)], deadline=5.0)
    in_flight.add([publication(2)], deadline=7.0)

    assert in_flight.expire(4.9) == 5.0
    assert ended == []
    assert in_flight.expire(5.0) == 7.0
    assert [(one.ticket, one.verdict) for one in ended] == [(1, Verdict.UNKNOWN)]
    in_flight.confirmed(2, multiple=True, taken=True)
    assert [(one.ticket, one.verdict) for one in ended][1:] == [(2, Verdict.CONFIRMED)]
    assert in_flight.expire(99.0) is None


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=15), st.data())
def test_copies_on_routable_and_unroutable_ways_each_get_their_own_answer(
    sends: list[tuple[str, bool]], data: st.DataObject
) -> None:
    """A broker returns in order, each return before its confirm; confirms come in any order and bundling."""
    ended: list[Outcome] = []
    in_flight = InFlight(ended.append)
    publications = [
        publication(ticket, message_id=message_id, key="queue" if routable else "nowhere")
        for ticket, (message_id, routable) in enumerate(sends, start=1)
    ]
    in_flight.add(publications, deadline=1.0)
    open_tags = list(range(1, len(sends) + 1))
    for tag, one in enumerate(publications, start=1):
        if not sends[tag - 1][1]:
            in_flight.returned(route_of(one), "NO_ROUTE")
            if data.draw(st.booleans(), label="confirmed at once"):
                in_flight.confirmed(tag, multiple=False, taken=True)
                open_tags.remove(tag)
    while open_tags:
        tag = data.draw(st.sampled_from(open_tags), label="tag")
        multiple = data.draw(st.booleans(), label="multiple")
        in_flight.confirmed(tag, multiple=multiple, taken=True)
        open_tags = [other for other in open_tags if other > tag or (not multiple and other != tag)]

    verdicts = {one.ticket: one.verdict for one in ended}
    assert len(ended) == len(sends) == len(verdicts)
    for ticket, (_, routable) in enumerate(sends, start=1):
        assert verdicts[ticket] is (Verdict.CONFIRMED if routable else Verdict.RETURNED)
    assert len(in_flight) == 0

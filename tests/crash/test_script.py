"""The participants' script: what an order's id asks for, what a seed draws, and what makes no sense."""

from __future__ import annotations

import pytest

from tests.crash.script import Behaviour, Script, Word, directives


def test_an_order_without_directives_is_served_well() -> None:
    assert Script().behaviour("o-1", "payment", "do") == Behaviour(word=Word.OK)


def test_an_order_says_what_is_done_with_it() -> None:
    script, order = Script(), "o-1~payment=fail:1~stock.undo=late:2.5"
    assert script.behaviour(order, "payment", "do") == Behaviour(word=Word.FAIL, number=1)
    assert script.behaviour(order, "stock", "undo") == Behaviour(word=Word.LATE, number=2.5)
    assert script.behaviour(order, "stock", "do") == Behaviour()


def test_a_seed_draws_the_same_for_the_same_order_for_ever() -> None:
    mix = {"fail": 0.3, "silent": 0.2}
    orders = [f"o-{number}" for number in range(300)]
    drawn = [Script(seed=7, mix=mix).behaviour(order, "payment", "do").word for order in orders]
    assert drawn == [Script(seed=7, mix=mix).behaviour(order, "payment", "do").word for order in orders]
    assert drawn != [Script(seed=8, mix=mix).behaviour(order, "payment", "do").word for order in orders]
    assert set(drawn) == {Word.OK, Word.FAIL, Word.SILENT}


def test_who_has_no_transient_reply_draws_none() -> None:
    script = Script(mix={"transient": 1.0})
    drawn = {participant: script.behaviour("o", participant, "do").word for participant in ("stock", "payment")}
    assert drawn == {"stock": Word.OK, "payment": Word.TRANSIENT}


def test_a_mix_never_touches_an_undo_nor_an_order_that_says_what_it_wants() -> None:
    script = Script(mix={"fail": 1.0})
    assert script.behaviour("o", "payment", "undo") == Behaviour()
    assert script.behaviour("o~stock=late:1", "payment", "do") == Behaviour()
    assert script.behaviour("o", "payment", "do").word is Word.FAIL


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        ("o~bank=fail", "no participant bank"),
        ("o~stock=explode", "explode"),
        ("o~stock=transient:1", "no transient reply"),
        ("o~stock.undo=fail", "no failure reply"),
        ("o~stock.undo=contradict", "no failure reply"),
        ("o~stock", "a directive reads"),
        ("o~stock=ok~stock=fail", "each one once"),
    ],
)
def test_a_directive_that_makes_no_sense_is_an_error(order: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        directives(order)

"""The participant's book keeps the participant's side of the wire contract."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.crash.ledger import Book, Command, Ledger
from tests.crash.participant import preludes
from tests.crash.script import Behaviour, Word

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK = Behaviour()
KEY = "saga/pay/1/do"


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    opened = Book("payment", tmp_path / "payment.ledger")
    yield opened
    opened.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def pay(message_id: str, *, key: str = KEY, order: str = "o-1") -> Command:
    return command("payment.MakePayment", message_id, key=key, order=order)


def refund(message_id: str, *, of: str = KEY, order: str = "o-1") -> Command:
    return command("payment.RefundPayment", message_id, key=of.replace("/do", "/undo"), order=order, compensates=of)


def command(name: str, message_id: str, *, key: str, order: str, compensates: str = "") -> Command:
    body = json.dumps({"order_id": order}).encode()
    return Command(
        message_id=message_id,
        name=name,
        body=body,
        body_hash=hashlib.sha256(body).hexdigest(),
        idempotency_key=key,
        compensates=compensates,
        correlation_id="saga",
        reply_to="antiphon.saga.PlaceOrder",
        redelivered=False,
    )


def dispositions(ledger: Ledger) -> list[str]:
    return [arrival.disposition for arrival in ledger.arrivals()]


def test_an_effect_is_applied_once_and_its_reply_repeated_to_the_byte(book: Book, ledger: Ledger) -> None:
    first, again = book.take(pay("m-1"), OK), book.take(pay("m-1"), OK)
    assert first is not None
    assert first == again
    assert first.name == "payment.PaymentCompleted"
    assert json.loads(first.body)["payment_id"]
    assert ledger.sequence("o-1") == ["do payment"]
    assert dispositions(ledger) == ["applied", "repeated"]


def test_a_new_id_with_an_applied_key_gets_the_stored_success_under_its_own_id(book: Book, ledger: Ledger) -> None:
    first, second = book.take(pay("m-1"), OK), book.take(pay("m-2"), OK)
    assert first is not None
    assert second is not None
    assert (second.body, second.message_id) == (first.body, "m-2")
    assert second.reply_id != first.reply_id
    assert ledger.sequence("o-1") == ["do payment"]


def test_an_undo_finds_its_effect_by_what_it_compensates(book: Book, ledger: Ledger) -> None:
    book.take(pay("m-1"), OK)
    reply = book.take(refund("m-2"), OK)
    assert reply is not None
    assert reply.name == "payment.PaymentRefunded"
    assert ledger.sequence("o-1") == ["do payment", "undo payment"]
    assert ledger.net("o-1") == {"stock": 0, "payment": 0, "warehouse": 0}


def test_an_undo_is_applied_once(book: Book, ledger: Ledger) -> None:
    book.take(pay("m-1"), OK)
    replies = [book.take(refund(message_id), OK) for message_id in ("m-2", "m-2", "m-3")]
    assert all(reply is not None and reply.name == "payment.PaymentRefunded" for reply in replies)
    assert ledger.sequence("o-1") == ["do payment", "undo payment"]


def test_an_undo_that_overtakes_its_do_leaves_a_tombstone(book: Book, ledger: Ledger) -> None:
    assert book.take(refund("m-2"), OK) is not None
    assert book.take(pay("m-1"), OK) is None
    assert ledger.sequence("o-1") == []
    assert dispositions(ledger) == ["tombstone", "dropped"]


def test_a_refusal_has_no_effect_and_is_repeated(book: Book, ledger: Ledger) -> None:
    refusal = Behaviour(word=Word.FAIL, number=1)
    first, again = book.take(pay("m-1"), refusal), book.take(pay("m-1"), OK)
    assert first is not None
    assert first.name == "payment.CardExpired"
    assert again == first
    assert ledger.sequence("o-1") == []


def test_the_undo_of_a_refused_do_has_no_effect(book: Book, ledger: Ledger) -> None:
    book.take(pay("m-1"), Behaviour(word=Word.FAIL))
    assert book.take(refund("m-2"), OK) is not None
    assert ledger.sequence("o-1") == []


def test_a_busy_participant_serves_the_attempt_after(book: Book, ledger: Ledger) -> None:
    busy = Behaviour(word=Word.TRANSIENT, number=2)
    replies = [book.take(pay(message_id), busy) for message_id in ("m-1", "m-1", "m-2", "m-3")]
    assert [reply.name.split(".")[1] for reply in replies if reply] == [
        "PaymentGatewayBusy",
        "PaymentGatewayBusy",
        "PaymentGatewayBusy",
        "PaymentCompleted",
    ]
    assert ledger.sequence("o-1") == ["do payment"]


def test_a_silent_participant_does_it_and_says_nothing_ever(book: Book, ledger: Ledger) -> None:
    silent = Behaviour(word=Word.SILENT)
    assert [book.take(pay(message_id), silent) for message_id in ("m-1", "m-1", "m-2")] == [None] * 3
    assert ledger.sequence("o-1") == ["do payment"]
    assert book.unsent() == []


def test_a_deaf_participant_does_nothing_and_says_nothing(book: Book, ledger: Ledger) -> None:
    assert book.take(pay("m-1"), Behaviour(word=Word.DEAF)) is None
    assert dispositions(ledger) == ["unheard"]
    assert ledger.sequence("o-1") == []


def test_a_mute_participant_answers_when_asked_again_under_the_same_id(book: Book) -> None:
    mute = Behaviour(word=Word.MUTE, number=2)
    replies = [book.take(pay("m-1"), mute) for _ in range(3)]
    assert [reply is not None for reply in replies] == [False, False, True]


@pytest.mark.parametrize("word", [Word.CONTRADICT, Word.MALFORMED, Word.STRANGER, Word.UNKNOWN, Word.ECHO])
def test_who_speaks_strangely_has_done_what_was_asked(book: Book, ledger: Ledger, word: Word) -> None:
    reply = book.take(pay("m-1"), Behaviour(word=word))
    assert reply is not None
    assert (reply.name, reply.word) == ("payment.PaymentCompleted", word.value)
    assert ledger.sequence("o-1") == ["do payment"]
    assert ledger.malformed() == (word is Word.MALFORMED)


def test_what_is_said_before_the_true_answer_is_always_the_same(book: Book) -> None:
    told = {}
    for word in (Word.OK, Word.CONTRADICT, Word.MALFORMED, Word.STRANGER, Word.UNKNOWN):
        reply = book.take(pay(f"m-{word}", key=f"{word}/pay/1/do"), Behaviour(word=word))
        assert reply is not None
        assert preludes(reply) == preludes(reply)
        told[word] = preludes(reply)
        assert all(prelude.reply_id != reply.reply_id for prelude in told[word])
    assert told[Word.OK] == []
    assert [prelude.name for prelude in told[Word.CONTRADICT]] == ["payment.PaymentDeclined"]
    assert [prelude.message_id for prelude in told[Word.MALFORMED]] == ["m-malformed"]
    assert [prelude.correlation_id == "saga" for prelude in told[Word.STRANGER]] == [False]
    assert [prelude.correlation_id == "saga" for prelude in told[Word.UNKNOWN]] == [True]
    assert [prelude.message_id == "m-unknown" for prelude in told[Word.UNKNOWN]] == [False]


def test_books_are_read_order_by_order(book: Book, ledger: Ledger) -> None:
    for order in ("o-1", "o-2", "o-3"):
        book.take(pay(f"m-{order}", key=f"{order}/pay/1/do", order=order), OK)
    book.take(pay("m-o-1", key="o-1/pay/1/do"), OK)
    assert [effect.order_id for effect in ledger.effects("o-1", "o-3")] == ["o-1", "o-3"]
    assert [arrival.order_id for arrival in ledger.arrivals("o-1")] == ["o-1", "o-1"]
    assert ledger.repeated() == 1


def test_what_was_not_sent_is_owed_after_a_restart(book: Book, ledger: Ledger, tmp_path: Path) -> None:
    late = book.take(pay("m-1"), Behaviour(word=Word.LATE, number=60))
    prompt = book.take(pay("m-2", key="other/pay/1/do"), OK)
    assert late is not None
    assert prompt is not None
    book.sent(prompt)
    restarted = Book("payment", tmp_path / "payment.ledger")
    assert restarted.unsent() == [late]
    restarted.close()
    assert ledger.owed() == 1


def test_a_command_of_another_trade_is_not_taken(book: Book, ledger: Ledger) -> None:
    with pytest.raises(ValueError, match=r"stock\.ReserveStock is not a command"):
        book.take(command("stock.ReserveStock", "m-1", key="k", order="o-1"), OK)
    assert ledger.arrivals() == []


def test_the_books_of_all_participants_are_read_in_the_order_of_time(
    book: Book, ledger: Ledger, tmp_path: Path
) -> None:
    stock = Book("stock", tmp_path / "stock.ledger")
    stock.take(command("stock.ReserveStock", "s-1", key="saga/reserve/1/do", order="o-1"), OK)
    book.take(pay("m-1"), OK)
    book.take(refund("m-2"), OK)
    undo = command("stock.ReleaseStock", "s-2", key="saga/reserve/1/undo", order="o-1", compensates="saga/reserve/1/do")
    stock.take(undo, OK)
    stock.close()
    assert ledger.sequence("o-1") == ["do stock", "do payment", "undo payment", "undo stock"]
    assert ledger.net("o-1") == {"stock": 0, "payment": 0, "warehouse": 0}

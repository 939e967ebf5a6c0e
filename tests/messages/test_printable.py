"""Text from outside cannot break a log line, a text column or a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.printable import MAX_TEXT, in_words, printable


@given(st.text(st.characters()), st.integers(min_value=1, max_value=50))
def test_the_result_is_short_and_can_be_stored_and_shown(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in shown)
    shown.encode("utf-8")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=MAX_TEXT))
def test_plain_text_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc", r"a\nb\tc"),
        ("nul \x00", r"nul \x00"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\ud800", r"\ud800"),
        ("\u202eevil", r"\u202eevil"),
        ("Grüße 🎼", "Grüße 🎼"),
    ],
)
def test_what_would_do_harm_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_was_cut_off_is_marked() -> None:
    assert printable("x" * 501) == "x" * 499 + "…"
    assert printable("x" * 500) == "x" * 500


class SayingError(Exception):
    """An exception whose text is made by what it was given."""

    def __str__(self) -> str:
        text: str = self.args[0]()
        return text


def leave() -> str:
    raise SystemExit("enough")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError(), "ValueError"),
        (ValueError("a\nb\x00"), r"ValueError: a\nb\x00"),
        (SystemExit(3), "SystemExit: 3"),
        (SayingError(lambda: "plainly"), "SayingError: plainly"),
        (SayingError(lambda: 1 / 0), "SayingError (no text: its __str__ raised ZeroDivisionError)"),
        (SayingError(leave), "SayingError (no text: its __str__ raised SystemExit)"),
        (SayingError(lambda: None), "SayingError (no text: its __str__ raised TypeError)"),
    ],
)
def test_an_exception_is_put_into_words_whatever_it_does(error: BaseException, words: str) -> None:
    assert in_words(error) == words


def test_an_exception_with_a_gigantic_text_is_cut_off() -> None:
    words = in_words(ValueError("x" * 10_000_000), 100)
    assert (len(words), words[:12], words[-1]) == (100, "ValueError: ", "…")

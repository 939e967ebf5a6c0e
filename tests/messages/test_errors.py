"""The tree of errors is drawn as it is, every error has a verdict, and each tells the reader what to do."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from messages import errors
from messages.errors import VERDICTS, AntiphonError, MessageError, Verdict

INDENT = 4


def below(error: type[AntiphonError]) -> list[type[AntiphonError]]:
    found = [child for child in error.__subclasses__() if child.__module__ == errors.__name__]
    return found + [deeper for child in found for deeper in below(child)]


TREE = below(AntiphonError)


def drawing() -> list[tuple[int, str]]:
    """The drawing in the module's docstring as (depth, name)."""
    text = re.search(r"```\n(.*?)```", errors.__doc__ or "", re.DOTALL)
    assert text
    lines = [re.match(r"([│├└─ ]*)(\w+)", line) for line in text[1].splitlines()]
    return [(len(line[1]) // INDENT, line[2]) for line in lines if line]


def drawn_parents() -> dict[str, str]:
    parents: dict[str, str] = {}
    path: list[str] = []
    for depth, name in drawing():
        path[depth:] = [name]
        if depth:
            parents[name] = path[depth - 1]
    return parents


def test_the_drawing_shows_every_class_under_its_parent() -> None:
    assert drawing()[0] == (0, "AntiphonError")
    assert all(later[0] <= earlier[0] + 1 for earlier, later in pairwise(drawing()))
    assert drawn_parents() == {error.__name__: error.__bases__[0].__name__ for error in TREE}


def test_every_error_below_the_root_has_a_verdict() -> None:
    assert set(VERDICTS) == set(TREE)


def test_what_the_sender_or_author_got_wrong_is_dead_lettered_and_trouble_is_retried() -> None:
    for error, verdict in VERDICTS.items():
        assert (verdict is Verdict.DEAD_LETTER) == issubclass(error, MessageError)
        assert (verdict is Verdict.RETRY) == issubclass(error, errors.Trouble)


def test_every_dead_letter_has_a_reason_of_its_own() -> None:
    reasons = [error.reason for error in TREE if issubclass(error, MessageError)]
    assert len(set(reasons)) == len(reasons) > 1
    assert all(re.fullmatch(r"[a-z_]+", reason) for reason in reasons)


def test_dead_letters_of_an_authors_code_are_grouped_by_what_it_raised_and_all_others_by_their_own_class() -> None:
    for error in (errors.MethodRaised, errors.HandlerRaised):
        raised = error("PlaceOrder.pay raised KeyError: 'total'")
        assert raised.error_class == error.__name__
        raised.__cause__ = KeyError("total")
        assert raised.error_class == "KeyError"
    malformed = errors.MalformedMessage("not JSON")
    malformed.__cause__ = ValueError("line 1")
    assert malformed.error_class == "MalformedMessage"


@pytest.mark.parametrize("error", [AntiphonError, *TREE], ids=lambda error: error.__name__)
def test_an_error_says_in_its_docstring_what_it_means(error: type[AntiphonError]) -> None:
    assert "__doc__" in vars(error)
    assert (error.__doc__ or "").endswith(".")


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_an_error_carries_the_saga_and_the_message_where_they_are_known(error: type[AntiphonError]) -> None:
    raised = error("what, where, remedy", saga_type="PlaceOrder", saga_id="s-1", message_id="m-1")
    assert (str(raised), raised.saga_type, raised.saga_id, raised.message_id) == (
        "what, where, remedy",
        "PlaceOrder",
        "s-1",
        "m-1",
    )

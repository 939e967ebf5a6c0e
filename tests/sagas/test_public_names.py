"""What `from sagas import …` offers: words that are not built yet are absent."""

import pytest

import sagas


def test_the_public_names_are_these() -> None:
    assert sorted(sagas.__all__) == [
        "Alias",
        "Definition",
        "Patience",
        "Policies",
        "Registry",
        "Retry",
        "Saga",
        "all_of",
        "alternative",
        "announce",
        "cancel",
        "child",
        "decision",
        "definition_of",
        "each",
        "lifecycle",
        "match",
        "migrate",
        "on",
        "parallel",
        "query",
        "repeat",
        "signal",
        "sleep",
        "start",
        "step",
        "wait",
        "when",
        "with_policies",
    ]


@pytest.mark.parametrize("name", sagas.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(sagas, name).__doc__

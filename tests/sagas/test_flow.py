"""What `>>` makes."""

from sagas.flow import Flow, Sequence, leaves


def test_a_sequence_keeps_the_order() -> None:
    a, b, c = Flow(), Flow(), Flow()
    assert list(leaves(a >> b >> c)) == [a, b, c]


def test_grouping_does_not_matter() -> None:
    a, b, c = Flow(), Flow(), Flow()
    assert list(leaves((a >> b) >> c)) == list(leaves(a >> (b >> c)))


def test_a_flow_is_not_changed_by_what_is_built_on_it() -> None:
    a, b, c = Flow(), Flow(), Flow()
    start = a >> b
    assert list(leaves(start >> c)) == [a, b, c]
    assert list(leaves(start)) == [a, b]


def test_what_does_not_belong_is_kept_for_the_check_to_name() -> None:
    a = Flow()
    flow = "before" >> a  # type: ignore[operator]
    assert isinstance(flow, Sequence)
    assert list(leaves(flow)) == ["before", a]

"""What a saga is and decides: the authoring language, its compiled definitions and the pure `decide`."""

from sagas.authoring import (
    Saga,
    all_of,
    alternative,
    announce,
    cancel,
    decision,
    each,
    lifecycle,
    match,
    migrate,
    on,
    parallel,
    query,
    repeat,
    signal,
    sleep,
    start,
    step,
    wait,
    when,
)
from sagas.compile import definition_of
from sagas.definition import Definition, Retry
from sagas.policies import Patience, Policies, with_policies
from sagas.registry import Registry

__all__ = [
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

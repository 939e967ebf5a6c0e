"""`definitions list`, `show`, `diff` and `drain`: which versions of a saga there are, here and in the database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from messages.errors import OperationRefused
from runtime.database import opened
from runtime.exits import FAILED, OK
from runtime.loading import known_to
from runtime.printing import console, line, print_facts, print_folded, print_json, table
from runtime.settings import load
from runtime.timeline import duration
from sagas.difference import difference, flow_of, remedy
from sagas.problems import listed, suggestion
from storage import definitions
from storage.living import Living, Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import Console

    from runtime.loading import Known
    from sagas.definition import Definition
    from sagas.difference import Change
    from storage.definitions import RecordedDefinition

SHORT = 7
"""Characters of a digest for people."""

_STYLES = {"refused": "bold red", "accepted": "green", "recorded": "cyan"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a saga: as this process has it, as it was recorded, and what lives on it."""

    type: str
    number: int
    here: Definition | None
    recorded: RecordedDefinition | None
    standing: Standing
    starts: bool

    @property
    def changes(self) -> tuple[Change, ...]:
        """What has changed here since it was recorded."""
        if self.here is None or self.recorded is None or self.here.digests == self.recorded.digests:
            return ()
        return difference(self.recorded.document, self.here.document).changes

    @property
    def state(self) -> str:
        """How this process has it: `same` as recorded, `changed`, `refused`, `new`, or `missing`."""
        if self.here is None:
            return "missing"
        if self.recorded is None:
            return "new"
        if any(change.refused for change in self.changes):
            return "refused"
        return "changed" if self.changes else "same"

    @property
    def document(self) -> Mapping[str, Any]:
        """As this process has it, else as it was recorded."""
        known = self.here or self.recorded
        return {} if known is None else known.document

    @property
    def digests(self) -> Mapping[str, str]:
        """Those of the document."""
        known = self.here or self.recorded
        return {} if known is None else asdict(known.digests)


async def list_versions(*, as_json: bool) -> int:
    """Print every version that is known here or in the database."""
    versions = await _versions()
    if as_json:
        print_json([_as_json(each) for each in versions])
        return OK
    columns = ("saga", "version", "here", "starts", "live", "running", "compensating", "parked", "oldest", "recorded")
    rows = [
        (
            each.type,
            each.number,
            Text(each.state, _STYLES.get(each.state, "")),
            "yes" if each.starts else "",
            each.standing.live,
            each.standing.running,
            each.standing.compensating,
            each.standing.parked,
            each.standing.oldest,
            each.recorded.recorded_at if each.recorded else "",
            " ".join(digest[:SHORT] for digest in each.digests.values()),
        )
        for each in versions
    ]
    console().print(table((*columns, "shape, state, policy, code"), rows) if rows else "no sagas here, none recorded")
    return OK


async def show(saga_type: str, version: int | None, *, as_json: bool) -> int:
    """Print one version: its steps with what they send, how long they wait and how often they try.

    Raises:
        OperationRefused: there is none.
    """
    found = _chosen(await _versions(), saga_type, version)
    if as_json:
        print_json({**_as_json(found), "document": found.document})
    else:
        _print_version(console(), found)
    return OK


async def diff(saga_type: str, old: int | None, new: int | None, *, as_json: bool) -> int:
    """Print what has changed under each version since it was recorded, or from one version to another.

    Returns 1 when a change is refused.

    Raises:
        OperationRefused: there is no such version.
    """
    versions = await _versions()
    compared = list(_compared(versions, saga_type, old, new))
    if as_json:
        print_json([_comparison_as_json(each) for each in compared])
    else:
        out = console()
        for each in compared:
            _print_comparison(out, each)
    return FAILED if any(each.refused for each in compared) else OK


# -- what there is


async def _versions() -> list[Version]:
    settings = load().settings
    known = known_to(settings)
    async with opened(settings) as storage:
        recorded = await definitions.load(storage.database)
        standing = await Living(storage.database).standing()
    return _joined(known, recorded, standing)


def _joined(
    known: Known,
    recorded: Mapping[tuple[str, int], RecordedDefinition],
    standing: Mapping[tuple[str, int], Standing],
) -> list[Version]:
    here = {(each.type, each.version): each for versions in known.sagas.values() for each in versions.values()}
    return [
        Version(
            type=saga_type,
            number=number,
            here=here.get((saga_type, number)),
            recorded=recorded.get((saga_type, number)),
            standing=standing.get((saga_type, number), Standing()),
            starts=number == max(known.sagas.get(saga_type, {}), default=None),
        )
        for saga_type, number in sorted({*here, *recorded, *standing})
    ]


def _of_type(versions: Iterable[Version], saga_type: str) -> list[Version]:
    """The versions of a type, of which there is at least one.

    Raises:
        OperationRefused: there is none.
    """
    versions = list(versions)
    found = [each for each in versions if each.type == saga_type]
    if not found:
        hint = suggestion(saga_type, {each.type for each in versions})
        raise OperationRefused(
            f"no saga is called {saga_type!r}, here or in the database{hint}; antiphon definitions list shows them"
        )
    return found


def _chosen(versions: Iterable[Version], saga_type: str, number: int | None) -> Version:
    """That version, or without a number the one that starts new instances here, else the highest.

    Raises:
        OperationRefused: there is none.
    """
    found = _of_type(versions, saga_type)
    if number is None:
        return next((each for each in found if each.starts), found[-1])
    for each in found:
        if each.number == number:
            return each
    there = listed(str(each.number) for each in found)
    raise OperationRefused(f"saga {saga_type} has no version {number}; there is version {there}")


def _as_json(version: Version) -> dict[str, object]:
    recorded, standing = version.recorded, version.standing
    return {
        "type": version.type,
        "version": version.number,
        "here": version.state,
        "starts_new": version.starts,
        "live": standing.live,
        "running": standing.running,
        "compensating": standing.compensating,
        "parked": standing.parked,
        "oldest_started_at": standing.oldest,
        "recorded_at": recorded.recorded_at if recorded else None,
        "recorded_by_python": recorded.python if recorded else None,
        "digests": version.digests,
    }


# -- one version


def _print_version(out: Console, version: Version) -> None:
    document, standing = version.document, version.standing
    shape, policy = document["shape"], document["policy"]
    out.print(line(f"{version.type} version {version.number}", "bold"))
    facts = [
        ("here", _HERE[version.state]),
        ("starts new", "yes" if version.starts else "no"),
        ("recorded", version.recorded.recorded_at if version.recorded else "not yet"),
        ("live", standing.live),
        ("key", shape["key"]),
        ("deadline", duration(policy["deadline"])),
        ("starts on", ", ".join(f"{name} version {each['version']}" for name, each in shape["starts"].items())),
        ("flow", flow_of(document)),
        *((part, digest[:SHORT]) for part, digest in version.digests.items()),
    ]
    print_facts(out, facts)
    out.print()
    columns = ("method", "step", "sends", "waits", "attempts", "backoff", "at most", "answers")
    out.print(table(columns, list(_calls(shape["steps"], policy["steps"]))))
    if waits := list(_waits(shape.get("notices", {}), policy.get("waits", {}))):
        out.print()
        out.print(table(("wait", "times out", "then", "tells"), waits))
    if heard := shape.get("heard"):
        out.print()
        rows = [
            (f"{name} version {each['version']}", each["role"], each["of"], each["key"]) for name, each in heard.items()
        ]
        out.print(table(("hears", "as", "method", "by its field"), rows))


_HERE = {
    "same": "as it was recorded",
    "changed": "changed since it was recorded, and may run",
    "refused": "changed since it was recorded, and must not run; see antiphon definitions diff",
    "new": "not recorded yet: it never ran on this database",
    "missing": "no module of this process defines it",
}


def _calls(steps: Mapping[str, Any], policies: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for step, calls in steps.items():
        for purpose in ("do", "undo"):
            call, patience = calls[purpose], policies[step][purpose]
            if call is None:
                continue
            retry = patience["retry"]
            role = "undoes it" if purpose == "undo" else f"{step}{', the pivot' if calls.get('pivot') else ''}"
            answered = bool(call["replies"])
            yield (
                call["name"],
                role,
                f"{call['command']} version {call['version']}",
                duration(patience["timeout"]) if answered else "for nothing",
                retry["attempts"] if answered else "",
                f"{duration(retry['backoff'])}, times {retry['factor']:g}" if answered else "",
                duration(retry["cap"]) if answered else "",
                ", ".join(
                    f"{name} version {reply['version']} ({reply['kind']})" for name, reply in call["replies"].items()
                ),
            )


def _waits(sent: Mapping[str, Any], policies: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for wait, policy in policies.items():
        never = policy["timeout"] is None
        told = [
            f"{sent[f'{wait}/{name}']['command']} after {duration(each['after'])}"
            + ("" if each["every"] is None else f", every {duration(each['every'])}")
            for name, each in policy["notices"].items()
        ]
        yield (
            wait,
            "with the saga" if never else f"after {duration(policy['timeout'])}",
            "" if never else "its default holds" if policy["default"] else "it has failed",
            "; ".join(told),
        )


# -- two of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What has changed from one document to another. Where it is of one version, a change may be refused."""

    type: str
    old: int
    new: int
    changes: tuple[Change, ...]
    unrecorded: bool = False

    @property
    def same_version(self) -> bool:
        """Whether it is of one version, recorded and here."""
        return self.old == self.new

    @property
    def refused(self) -> bool:
        """Whether this process must not run the instances of the version."""
        return self.same_version and any(change.refused for change in self.changes)

    def verdict(self, change: Change) -> str:
        """What becomes of a change: under a new version everything may change."""
        return change.verdict if self.same_version else "allowed"


def _compared(versions: list[Version], saga_type: str, old: int | None, new: int | None) -> Iterator[Comparison]:
    if old is not None and new is not None:
        before, after = _chosen(versions, saga_type, old), _chosen(versions, saga_type, new)
        if old != new:
            changes = difference(before.document, after.document).changes
            yield Comparison(type=saga_type, old=old, new=new, changes=changes)
            return
    chosen = _of_type(versions, saga_type) if old is None else [_chosen(versions, saga_type, old)]
    here = [each for each in chosen if each.here is not None]
    if not here:
        numbers = listed(str(each.number) for each in chosen)
        raise OperationRefused(
            f"no module of this process defines saga {saga_type} in version {numbers}, so there is nothing to compare "
            "what was recorded with; is the module in ANTIPHON_MODULES?"
        )
    for each in here:
        yield Comparison(
            type=saga_type,
            old=each.number,
            new=each.number,
            changes=each.changes,
            unrecorded=each.recorded is None,
        )


def _print_comparison(out: Console, compared: Comparison) -> None:
    name = f"{compared.type} version {compared.old}"
    if compared.unrecorded:
        out.print(line(f"{name}: not recorded yet, so there is nothing to compare it with"))
        return
    between = ", from what is recorded to what is here" if compared.same_version else f" to version {compared.new}"
    out.print(line(f"{name}{between}{'' if compared.changes else ': nothing has changed'}", "bold"))
    for change in compared.changes:
        verdict = compared.verdict(change)
        begun = Text.assemble("  ", (f"{verdict:<9}", _STYLES.get(verdict, "")), f" {change.part:<7} ")
        print_folded(out, begun, line(change.text))
    if compared.refused:
        print_folded(out, Text("  "), line(f"refused, so antiphon run does not start: {remedy(compared.old)}", "red"))


def _comparison_as_json(compared: Comparison) -> dict[str, object]:
    return {
        "type": compared.type,
        "old": compared.old,
        "new": compared.new,
        "recorded": not compared.unrecorded,
        "refused": compared.refused,
        "changes": [
            {"part": change.part, "text": change.text, "verdict": compared.verdict(change)}
            for change in compared.changes
        ],
    }

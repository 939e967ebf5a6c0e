"""The report of a long run, for people: what was asked, what was done to it, what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.crash.checker import CHECKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.crash.soak.findings import Findings

HEAD = """\
# A long run under fire

Orchestrators share the work of ordinary orders while everything that can go wrong on one machine does, several things
at once: processes are killed and halted, connections cut and swallowed, statements refused, confirms lost, the servers
restarted and killed; participants refuse, fall silent, repeat, contradict and talk nonsense. Then all is healed, what
was dead-lettered is replayed twice, and every order is judged, from the public views and the participants' ledgers.
"""


def written(findings: Findings) -> str:
    """The report as markdown."""
    verdict = "**Nothing is wrong.**" if not findings.wrong else f"**{len(findings.wrong)} things are wrong.**"
    if findings.never_hit:
        verdict += f" The run proves nothing, for these were never hit: {', '.join(findings.never_hit)}."
    return "\n".join([HEAD, f"```sh\n{findings.command}\n```", "", verdict, "", *_sections(findings)])


def _sections(findings: Findings) -> Iterable[str]:
    books, wire = findings.books, findings.wire
    asked = [("orders placed", findings.judged), ("of them placed once more", findings.copies_placed)]
    yield from _table("What was asked", ("", ""), asked)
    yield from _table("What was done to it", ("fault", "times"), findings.faults.most_common())
    yield f"{findings.missed} faults found no window in time. Processes there were: {_listed(findings.lives)}.\n"
    came = [
        ("lost", max(0, findings.judged - books.get("sagas", 0))),
        *findings.outcomes.items(),
        *wire.items(),
        *books.items(),
        (
            "deliveries absorbed: copies, or in the hands of one who died",
            wire["deliveries"] - books.get("messages taken", 0),
        ),
    ]
    yield from _table("What came of it", ("", ""), came)
    latencies = [(status, f"{median:.2f}", f"{slow:.1f}") for status, median, slow in findings.latencies]
    yield from _table("How long a saga took, in seconds, faults and all", ("end", "p50", "p99"), latencies)
    yield from _demands(findings)
    names = [f"{name} (MiB)" for name in (*findings.lives, "the laboratory")]
    memory = [(f"{minute:.0f}", *(size or "-" for size in sizes)) for minute, sizes in findings.memory]
    yield from _table("Memory", ("minute", *names), memory)
    if findings.wrong:
        yield "## What is wrong\n"
        yield from (f"- {sentence}" for sentence in [*findings.wrong, *findings.stalls])
        yield ""


def _demands(findings: Findings) -> Iterable[str]:
    """What every order was held to, in the checks' own words."""
    yield "## What was demanded\n"
    yield f"Of each of {findings.judged} orders, from the public views and the ledgers:\n"
    yield from (f"- {(check.__doc__ or check.__name__).splitlines()[0]}" for check in CHECKS)
    away = f" ({findings.blind_samples} more times the database was away)" if findings.blind_samples else ""
    yield f"\nThe statement of rule 16 was asked {findings.stall_samples} times, twice a second{away},"
    yield f"and found {len(findings.stalls) or 'nobody'} who waits in vain.\n"
    for number, verdicts in zip(("first", "second"), findings.replays, strict=False):
        yield f"- the {number} replay of every dead letter: {verdicts}"
    yield "\nThe second replay had to change no book, and did not.\n" if not findings.wrong else ""


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    yield f"## {title}\n"
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(map(str, row))} |" for row in rows)
    yield ""


def _listed(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())

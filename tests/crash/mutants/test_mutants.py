"""The laboratory bites: each mutant of the product is told from the product, which passes the same runs.

The mutants run as processes of their own, out of a changed copy of the product; nothing of it is imported here.
"""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.crash.forking import ROOT
from tests.crash.laboratory import Laboratory
from tests.crash.mutants import runs
from tests.crash.mutants.catalog import MUTANTS
from tests.crash.mutants.runs import Bench
from tests.crash.mutants.tree import Edit, PatchError, changed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.crash.driver import Setup
    from tests.crash.mutants.catalog import Mutant
    from tests.crash.mutants.runs import Run
    from tests.services.private import PrivatePostgres

Verdict: TypeAlias = "Callable[[Run, Path, float], Awaitable[list[str]]]"
PATIENT, IMPATIENT = 60.0, 2.5  # seconds without a change after which the product, or a mutant of it, is judged
ON_A_SERVER_OF_ITS_OWN = (runs.the_database_dies_in_a_commit,)
RUNS = list(dict.fromkeys(mutant.run for mutant in MUTANTS))


@pytest.fixture
def verdict(request: pytest.FixtureRequest, setup: Setup) -> Iterator[Verdict]:
    """What a run says of the product in a tree."""
    with ExitStack() as kept:

        async def told(run: Run, tree: Path, quiet: float) -> list[str]:
            server: PrivatePostgres | None = None
            here = replace(setup, tree=tree)
            if run in ON_A_SERVER_OF_ITS_OWN:
                server = request.getfixturevalue("private_postgres")
                kept.enter_context(writing_late(server))
                here = replace(here, database_url=server.database())
            async with Laboratory(setup=here, migrated=server is None) as laboratory:
                return await run(Bench(laboratory=laboratory, quiet=quiet, postgres=server))

        yield told


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
async def test_the_product_passes(verdict: Verdict, run: Run) -> None:
    assert await verdict(run, ROOT, PATIENT) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_a_mutant_is_caught(verdict: Verdict, tmp_path: Path, mutant: Mutant) -> None:
    found = await verdict(mutant.run, changed(mutant.edits, tmp_path), IMPATIENT)
    assert any(re.search(mutant.tells, sentence) for sentence in found), found


@contextmanager
def writing_late(server: PrivatePostgres) -> Iterator[None]:
    """A server that writes nothing of a transaction to its disk before the commit."""
    for setting in ("wal_writer_delay = '10s'", "full_page_writes = off"):
        server.psql(f"alter system set {setting}")
    server.psql("select pg_reload_conf()")
    yield
    server.psql("alter system reset all")
    server.psql("select pg_reload_conf()")


def test_every_mutant_is_told_of() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    section = page.partition("## How we know that the tests bite")[2].partition("\n## ")[0]
    assert re.findall(r"^- (.+)[;.]$", section, re.MULTILINE) == [mutant.name for mutant in MUTANTS]


def test_a_mutant_that_no_longer_applies_fails(tmp_path: Path) -> None:
    gone = Edit(file="handlers/handle.py", old="no such line", new="")
    with pytest.raises(PatchError, match=r"handlers/handle\.py has 0 times instead of once:\nno such line"):
        changed([gone], tmp_path)


def test_a_mutant_that_is_no_python_fails(tmp_path: Path) -> None:
    broken = Edit(file="handlers/handle.py", old="class Handler:", new="class Handler")
    with pytest.raises(PatchError, match="is no Python any more"):
        changed([broken], tmp_path)

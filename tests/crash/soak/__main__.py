"""The long run: `python -m tests.crash.soak --minutes 30 --starts 20 --sidecars 3 --seed N`.

Exit code 0: nothing wrong. 1: something is, and the evidence is kept. 3: the run proves nothing, because some window
that a fault was aimed at was never hit.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sys
from pathlib import Path

from tests.crash.soak.report import written
from tests.crash.soak.run import Plan, Soak

INVALID = 3


def planned() -> tuple[Plan, Path | None]:
    """What the command line asks for, and where the report goes besides the folder of the run."""
    parser = argparse.ArgumentParser(description="orders, faults and three orchestrators, for a long time")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--starts", type=float, default=20, help="orders placed per second")
    parser.add_argument("--sidecars", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--folder", type=Path, default=Path("build/soak"), help="logs, ledgers, report: the evidence")
    parser.add_argument("--report", type=Path, help="write the report here too")
    told = parser.parse_args()
    folder = told.folder.resolve() / f"seed-{told.seed}"
    plan = Plan(minutes=told.minutes, starts=told.starts, sidecars=told.sidecars, seed=told.seed, folder=folder)
    return plan, told.report


def main() -> int:
    """Run, report, and say how it went."""
    plan, report = planned()
    logging.basicConfig(level=logging.CRITICAL)  # of libraries that tell of each fault in their own way
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.mkdir(parents=True)
    print(f"soak: {plan.command}\nsoak: evidence in {plan.folder}", flush=True)
    findings = asyncio.run(Soak(plan).run())
    text = written(findings)
    (plan.folder / "report.md").write_text(text)
    if report is not None:
        report.write_text(text)
    print(text, flush=True)
    if findings.wrong:
        print(f"soak: {len(findings.wrong)} things are wrong; the evidence is in {plan.folder}", file=sys.stderr)
        return 1
    if findings.never_hit:
        print(f"soak: invalid, for these were never hit: {findings.never_hit}", file=sys.stderr)
        return INVALID
    for evidence in (*plan.folder.glob("*.ledger*"), *plan.folder.glob("*.log")):
        evidence.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())

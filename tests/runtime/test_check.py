"""`check --against` as a process, on SQLite and on PostgreSQL: the release of tomorrow on the database of today."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sagas.instance import message_id, saga_id
from tests.runtime.office import NAMESPACE
from tests.runtime.shop import PARTICIPANT, SAGA
from tests.runtime.test_bad_input import assert_told
from tests.runtime.test_dead import asked, command, letter, odd

if TYPE_CHECKING:
    from collections.abc import Callable

    from outbox.interface import DeadLetter
    from tests.runtime.conftest import Command
    from tests.runtime.office import Office
    from tests.runtime.processes import Ended, Process

TODAY = SAGA.replace(
    "    @step(success=Done)\n",
    """    @step(success=Done)
    def think(self) -> Do:
        return Do(order_id=self.order_id)

    @think.compensation(success=Undone)
    def forget(self) -> Undo:
        return Undo(order_id=self.order_id)

    @step(success=Done)
""",
).replace(
    "class Tiny(",
    """class Undo(Command, name="tiny.Undo", version=1):
    order_id: str

class Undone(Event, name="tiny.Undone", version=1):
    order_id: str

class Tiny(""",
)
"""A saga of two steps, of which the first is undone."""

HELPERS = """
@worker.handles
async def undo(command: Undo) -> Undone:
    return Undone(order_id=command.order_id)
"""


class Release:
    """An office in which the code of today has run; what is written afterwards is that of tomorrow."""

    def __init__(self, office: Office, antiphon: Command) -> None:
        self.office = office
        self._antiphon = antiphon

    def check(self, *arguments: str, **settings: str) -> Ended:
        """The command, with settings that know nothing of that database."""
        url = self.office.settings["database_url"]
        others = {"modules": "shop", "namespace": NAMESPACE, "database_url": "sqlite:///elsewhere.db"}
        return self._antiphon("check", "--against", url, *arguments, **{**others, **settings})

    def ask(self) -> Any:  # noqa: ANN401 - what JSON gives
        done = self.check("--json")
        assert done.stderr == ""
        said = json.loads(done.stdout)
        assert done.returncode == (1 if said["findings"] else 0)
        return said

    def found(self, which: str = "findings") -> list[tuple[str, int]]:
        return [(each["code"], each["amount"]) for each in self.ask()[which]]

    def write(self, code: str) -> None:
        (self.office.folder / "shop.py").write_text(code + PARTICIPANT + HELPERS)

    def begin(self, *orders: str) -> None:
        """Start instances, which nobody's process goes on with."""
        self.office.keep(*map(asked, orders))
        done = self.office.dead("replay", "--all")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def release(office: Office, antiphon: Command, started: Callable[..., Process]) -> Release:
    made = Release(office, antiphon)
    made.write(TODAY)
    _record(office, started)
    return made


def _record(office: Office, started: Callable[..., Process]) -> None:
    """Let the code run for a moment, so that its definitions are recorded."""
    sidecar = started("run", **office.settings)
    sidecar.until("process.ready")
    sidecar.send(signal.SIGTERM)
    assert sidecar.ended() == 0


def reply(name: str, order: str, step: str = "think", **values: Any) -> DeadLetter:  # noqa: ANN401
    """An answer that became a dead letter."""
    saga = saga_id(NAMESPACE, "Tiny", order)
    made = letter(name, f"{name}-{order}", {"order_id": order}, saga_id=saga, **values)
    answers = {"causation-id": message_id(saga, step, 1, 1, "do")}
    return replace(made, raw=replace(made.raw, correlation_id=str(saga), headers=answers))


def test_under_the_same_code_nothing_would_break(release: Release) -> None:
    release.begin("1", "2")
    said = release.ask()
    assert said["checked"] == {"instances": 2, "timers": 4, "held": 0, "dead_letters": 0, "not_ours": 0}
    assert (said["breaks"], said["findings"], said["notes"]) == (False, [], [])
    shown = release.check()
    assert shown.returncode == 0
    assert shown.stdout.startswith(
        "nothing would break: 2 live instances, 4 timers, 0 held messages, 0 open dead letters in "
    )


def test_a_method_that_would_raise_is_one_finding_with_its_line_and_its_instances(release: Release) -> None:
    release.begin("1", "2")
    release.write(
        TODAY.replace(
            "def forget(self) -> Undo:\n", "def forget(self) -> Undo:\n        raise KeyError(self.order_id)\n"
        )
    )
    [finding] = release.ask()["findings"]
    assert [finding[name] for name in ("code", "saga_type", "version", "amount")] == ["undo_needs_reply", "Tiny", 1, 2]
    assert re.match(r"Tiny\.forget: KeyError: '[12]' \(shop\.py:\d+\), when step think has timed out", finding["text"])
    assert sorted(each["business_key"] for each in finding["examples"]) == ["1", "2"]
    shown = release.check()
    assert shown.returncode == 1
    first, *_, last = shown.stdout.splitlines()
    assert first == "undo_needs_reply  Tiny version 1  2 instances"
    assert last.startswith("1 thing would break: 2 live instances, ")


def test_what_is_foretold_is_what_happens(release: Release) -> None:
    release.begin("1")
    assert release.office.sagas("skip", "1", "think", "--reason", "a test").returncode == 0
    release.write(TODAY.replace("return Undo(", "return 1 / 0 or Undo("))
    [finding] = release.ask()["findings"]
    assert finding["code"] == "method_raises"
    cancelled = json.loads(release.office.sagas("cancel", "1", "--reason", "a test", "--json").stdout)
    assert cancelled["status"] == "parked"
    assert finding["text"].startswith(cancelled["attention"]["method_raised"])
    assert (release.found(), release.found("notes")) == ([], [("parked_still", 1)])


def test_no_more_than_five_examples_are_kept(release: Release) -> None:
    release.begin(*map(str, range(7)))
    release.write(TODAY.replace("order_id: str\n\n    @start", "order_id: str\n    note: str\n\n    @start"))
    refused, unloadable = sorted(release.ask()["findings"], key=lambda each: str(each["code"]))
    assert (unloadable["code"], unloadable["amount"], len(unloadable["examples"])) == ("state_does_not_load", 7, 5)
    assert unloadable["text"] == "note: Field required"
    assert (refused["code"], refused["amount"]) == ("definition_refused", 7)
    assert "antiphon run would not start: field note is new and has no default" in refused["text"]


def test_a_change_that_keeps_the_process_from_starting_is_told_without_any_instance(release: Release) -> None:
    release.write(TODAY.replace("def think", "def ponder").replace("@think.", "@ponder."))
    assert release.found() == [("definition_refused", 0)]
    assert "definition_refused  Tiny version 1  no live instance" in release.check().stdout


def test_a_version_whose_class_is_gone_is_told_while_an_instance_stands_on_it(release: Release) -> None:
    tomorrow = TODAY.replace('class Tiny(Saga, key="order_id", version=1', 'class Tiny(Saga, key="order_id", version=2')
    release.write(tomorrow)
    assert release.found() == []
    release.write(TODAY)
    release.begin("1")
    release.write(tomorrow)
    [finding] = release.ask()["findings"]
    assert (finding["code"], finding["text"]) == (
        "version_missing",
        "Tiny is defined here in version 2, not in version 1",
    )
    assert "antiphon definitions drain Tiny 1" in finding["remedy"]


def test_a_parked_instance_is_no_finding_and_it_is_told_whether_this_code_has_mended_it(release: Release) -> None:
    broken = TODAY.replace("def work(self) -> Do:\n", "def work(self) -> Do:\n        1 / 0\n")
    release.begin("1")
    release.write(broken)
    assert release.office.sagas("skip", "1", "think", "--reason", "a test").returncode == 0
    assert (release.found(), release.found("notes")) == ([], [("parked_still", 1)])
    release.write(TODAY)
    assert (release.found(), release.found("notes")) == ([], [("parked_mended", 1)])


def test_a_dead_letter_is_told_by_whether_a_replay_would_succeed(release: Release) -> None:
    release.begin("1")
    release.office.keep(reply("tiny.Done", "1"), odd("m-1"), command("1"), asked("9", consumer="elsewhere"))
    said = release.ask()
    assert said["checked"]["dead_letters"] == 3
    assert said["checked"]["not_ours"] == 1
    assert sorted((each["code"], each["saga_type"], each["amount"]) for each in said["notes"]) == [
        ("letter_fails", "Tiny", 1),
        ("letter_replayable", "Tiny", 1),
        ("letter_replayable", "participant.worker", 1),
    ]
    release.write(TODAY.replace("def work(self) -> Do:\n", "def work(self) -> Do:\n        1 / 0\n"))
    fails = [each["text"] for each in release.ask()["notes"] if each["code"] == "letter_fails"]
    assert any("Tiny.work: ZeroDivisionError" in text for text in fails)


def test_a_dead_letter_that_could_be_read_and_cannot_any_more_is_a_finding(release: Release) -> None:
    release.begin("1")
    release.office.keep(reply("tiny.Done", "1"), command("1"))
    needs_more = 'name="tiny.{}", version=1):\n    order_id: str\n'
    tomorrow = TODAY
    for name in ("Done", "Do"):
        known = needs_more.format(name)
        tomorrow = tomorrow.replace(known, f"{known}    by: str\n")
    release.write(tomorrow.replace("Do(order_id=self.order_id)", "Do(order_id=self.order_id, by='me')"))
    said = release.ask()["findings"]
    assert sorted((each["code"], each["saga_type"], each["amount"]) for each in said) == [
        ("letter_unreadable", "Tiny", 1),
        ("letter_unreadable", "participant.worker", 1),
    ]
    assert all("by" in each["text"] for each in said)


def test_what_only_an_older_version_reads_is_read_by_it(release: Release) -> None:
    release.begin("1")
    release.office.keep(reply("tiny.Done", "1"))
    second = (
        TODAY[TODAY.index("class Tiny(") :].replace("class Tiny(", "class Second(").replace("version=1", "version=2")
    )
    newer = second.replace("success=Done", "success=Ended").replace('order_id", ', 'order_id", name="Tiny", ')
    release.write(f'{TODAY}\nclass Ended(Event, name="tiny.Ended", version=1):\n    order_id: str\n\n{newer}')
    assert (release.found(), release.found("notes")) == ([], [("letter_replayable", 1)])


def test_a_held_message_is_applied_to_see_whether_it_would_become_a_dead_letter(release: Release) -> None:
    release.begin("1")
    assert release.office.sagas("pause", "1", "--reason", "a test").returncode == 0
    release.office.keep(reply("tiny.Done", "1"))
    assert release.office.dead("replay", "--all").returncode == 0
    assert release.ask()["checked"]["held"] == 1
    assert release.found() == []
    release.write(TODAY.replace("def work(self) -> Do:\n", "def work(self) -> Do:\n        1 / 0\n"))
    assert ("held_fails", 1) in release.found()
    release.write(TODAY.replace('name="tiny.Done", version=1):\n', 'name="tiny.Done", version=1):\n    by: str\n'))
    assert ("held_unreadable", 1) in release.found()


def test_a_message_that_waits_for_its_version_goes_on_waiting(release: Release) -> None:
    release.begin("1")
    newer = reply("tiny.Done", "1")
    raw = replace(newer.raw, headers={**(newer.raw.headers or {}), "schema-version": 2})
    release.office.keep(replace(newer, raw=raw, reason="newer_version"))
    assert release.office.dead("replay", "--all").returncode == 0
    assert (release.found(), release.found("notes")) == ([], [("held_waits", 1)])


def test_who_would_share_an_alias_that_is_new_is_told(
    office: Office, antiphon: Command, started: Callable[..., Process]
) -> None:
    release = Release(office, antiphon)
    state = "    order_id: str\n"
    today = TODAY.replace(f"{state}\n    @start", f"{state}    ref: str | None = None\n\n    @start")
    today = today.replace("cls(order_id=event.order_id)", "cls(order_id=event.order_id, ref=event.order_id[:1])")
    release.write(today)
    _record(office, started)
    release.begin("a1", "a2", "a3", "b1")
    release.write(today.replace('class Tiny(Saga, key="order_id"', 'class Tiny(Saga, key="order_id", aliases=("ref",)'))
    said = release.ask()
    assert (said["breaks"], release.found("notes")) == (False, [("alias_shared", 2)])
    assert "its ref 'a' is that of 'a" in release.check().stdout


def test_nothing_is_changed_by_a_look(release: Release) -> None:
    release.begin("1", "2")
    tables = ("saga", "saga_event", "timer", "outbox", "attention", "held", "dead_letter", "definition")
    before = [release.office.rows(f"select * from {table} order by 1, 2") for table in tables]  # noqa: S608
    release.write(TODAY.replace("return Undo(", "return 1 / 0 or Undo("))
    assert release.check().returncode == 1
    assert [release.office.rows(f"select * from {table} order by 1, 2") for table in tables] == before  # noqa: S608


def test_the_address_is_read_from_stdin_where_nobody_else_sees_it(release: Release, antiphon: Command) -> None:
    url = release.office.settings["database_url"]
    done = antiphon("check", "--against", "-", stdin=f"{url}\n", modules="shop", namespace=NAMESPACE)
    assert (done.returncode, done.stdout.startswith("nothing would break: ")) == (0, True)


def test_a_database_has_to_be_named(antiphon: Command) -> None:
    done = antiphon("check")
    assert (done.returncode, "say on which database the new code is to run" in done.stderr) == (2, True)
    wrong = antiphon("check", "--against", "mysql://ann:hunter2@host/shop")
    assert (wrong.returncode, "it is not a database address" in wrong.stderr) == (2, True)
    assert "hunter2" not in wrong.stderr


def test_a_database_that_cannot_be_looked_at_is_told_and_not_made(antiphon: Command, folder: Any) -> None:  # noqa: ANN401
    missing = antiphon("check", "--against", "sqlite:///nowhere.db")
    assert_told(missing, 78, "there is no database file", "nowhere.db")
    assert not (folder / "nowhere.db").exists()
    away = antiphon("check", "--against", "postgresql://ann:hunter2@127.0.0.1:1/shop")
    assert_told(away, 69, "127.0.0.1:1", "start it, or correct what --against names")


def test_a_schema_that_is_behind_is_told_and_not_brought_up_to_date(small: Office, antiphon: Command) -> None:
    small.change("drop table alembic_version")
    done = antiphon("check", "--against", small.settings["database_url"], modules="shop")
    assert_told(done, 78, "antiphon migrate")
    assert asyncio.run(small._rows("select name from sqlite_master where name = 'alembic_version'")) == []

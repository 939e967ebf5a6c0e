"""The commands on dead letters, each as a process, on SQLite and on PostgreSQL: arguments, output, exit codes."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aio_pika
import pytest

from messages import codec
from messages.envelope import Raw
from outbox.interface import DeadLetter
from tests.runtime.office import Office
from tests.runtime.processes import Process
from tests.runtime.shop import PARTICIPANT, SAGA
from tests.runtime.terminal import on_terminal
from tests.runtime.test_bad_input import assert_told
from tests.services.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import Command, Settings


def asked(order: str, **values: Any) -> DeadLetter:  # noqa: ANN401
    """A start that once raised."""
    return letter("tiny.Asked", f"asked-{order}", {"order_id": order}, **values)


def odd(message_id: str, **values: Any) -> DeadLetter:  # noqa: ANN401
    """A start that can never be read."""
    odd = {"reason": "malformed", "error_class": "MalformedMessage", "error": "order_id: Field required", **values}
    return letter("tiny.Asked", message_id, {"order": "typo"}, **odd)


def command(order: str, **values: Any) -> DeadLetter:  # noqa: ANN401
    """A command that the participant once could not carry out."""
    return letter("tiny.Do", f"do-{order}", {"order_id": order}, **{"consumer": "participant.worker", **values})


def letter(name: str, message_id: str, said: dict[str, str], **values: Any) -> DeadLetter:  # noqa: ANN401
    raw = Raw(
        body=json.dumps(said).encode(),
        routing_key=name,
        message_id=message_id,
        type=name,
        app_id="tests",
        headers={"odd": b"\xff\x00"},
    )
    made = DeadLetter(
        consumer="Tiny",
        source="tests",
        message_id=message_id,
        name=name,
        raw=raw,
        body_hash=codec.body_hash(raw.body),
        reason="method_raised",
        error="Tiny.asked raised KeyError",
        error_class="KeyError",
    )
    return replace(made, **values)


def outcomes(done: Any) -> list[str]:  # noqa: ANN401
    return [verdict["outcome"] for verdict in done["verdicts"]]


# -- groups, list, show, export


def test_letters_that_are_alike_are_one_line(office: Office) -> None:
    office.keep(asked("1"), asked("2"), odd("m-1"), asked("1"))
    two, one = office.ask("groups")
    assert [two[name] for name in ("reason", "error_class", "name", "consumer", "letters", "copies")] == [
        "method_raised",
        "KeyError",
        "tiny.Asked",
        "Tiny",
        2,
        3,
    ]
    assert two["oldest"] < one["oldest"] < two["newest"]
    assert one["reason"] == "malformed"
    shown = office.dead("groups")
    assert (shown.returncode, len(shown.stdout.splitlines())) == (0, 4)
    assert office.ask("groups", "--reason", "malformed") == [one]
    assert office.ask("groups", "--status", "discarded") == []
    assert office.dead("groups", "--name", "no.Such").stdout == "no such dead letters\n"


def test_a_list_is_chosen_by_any_filter_and_by_ids(office: Office) -> None:
    first, second, third = office.keep(asked("1"), odd("m-1"), command("1"))

    def listed(*arguments: str) -> list[int]:
        return [each["dead_letter_id"] for each in office.ask("list", *arguments)]

    assert listed() == [third, second, first]
    assert listed("--reason", "malformed") == [second]
    assert listed("--error-class", "KeyError", "--consumer", "Tiny") == [first]
    assert listed("--name", "tiny.Do") == [third]
    assert listed(str(first), str(third)) == [third, first]
    assert listed("--since", "1h") == [third, second, first]
    assert listed("--until", "1h") == []
    assert listed("--since", "2026-01-01T00:00:00Z", "--until", "2036-01-01", "--limit", "1") == [third]
    assert listed("--saga", "00000000-0000-0000-0000-000000000000") == []
    page = office.dead("list", "--name", "tiny.Asked", "--limit", "1").stdout.splitlines()
    assert page[-1] == f"and more: antiphon dead list --name tiny.Asked --limit 1 --after {second}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--saga", "nobody"), "no instance has the id or business key 'nobody'"),
        (("list", "1", "9999"), "no dead letter has the id 9999; antiphon dead list --status all shows them"),
        (("export", "9999", "1", "998"), "no dead letter has the id 998, 9999"),
        (("show", "7"), "no dead letter has the id 7"),
        (("export", "--name", "no.Such"), "no such dead letters"),
        (("replay", "7"), "no dead letter has the id 7"),
        (("replay", "--name", "no.Such"), "no open dead letter is like that"),
        (("replay", "--resume", "7"), "no replay has the id 7; antiphon dead jobs lists them"),
        (("discard", "7", "--reason", "a test"), "no dead letter has the id 7"),
        (("jobs", "7"), "no replay has the id 7"),
    ],
)
def test_what_is_not_there_is_told_and_nothing_is_done(office: Office, arguments: tuple[str, ...], said: str) -> None:
    assert_nothing_done(office, arguments, 1, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--since", "yesterday"), "'yesterday' is no time; write how long ago"),
        (("replay", "--all", "--until", "2026-13-01"), "'2026-13-01' is no time"),
        (("list", "x"), "no dead letter has the id 'x'"),
        (("show", "nope"), "no dead letter has the id 'nope'"),
        (("replay", "abc"), "no dead letter has the id 'abc'"),
        (("discard", "9" * 30, "--reason", "a test"), f"no dead letter has the id '{'9' * 30}'"),
        (("jobs", "x"), "no replay has the id 'x'"),
        (("jobs", "--after", "x"), "begin with the first page"),
        (("list", "--status", "lost"), "a status is one of open, replayed, discarded, all"),
        (("show", "1", "--body", "--json"), "one of --body and --json"),
        (("replay",), "name dead letters by their ids, give a filter, or --all"),
        (("replay", "1", "--all"), "exclude each other"),
        (("replay", "1", "--name", "tiny.Asked"), "exclude each other"),
        (("replay", "--reason", "malformed"), "name dead letters by their ids, give a filter, or --all"),
        (("replay", "--name", "tiny.Asked", "--edit", "x"), "exactly one dead letter"),
        (("replay", "1", "--edit", "nowhere.json"), "nowhere.json: No such file"),
        (("replay", "1", "--dry-run", "--rate", "3"), "a dry run is not slowed down"),
        (("replay", "1", "--resume", "7", "--dry-run"), "leave out 1, --dry-run"),
        (("discard", "1"), "--reason"),
        (("discard", "1", "--reason", " "), "say why; it is recorded"),
        (("discard", "--reason", "a test"), "name dead letters by their ids, give a filter, or --all"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_done(small: Office, arguments: tuple[str, ...], said: str) -> None:
    assert_nothing_done(small, arguments, 2, said)


def assert_nothing_done(office: Office, arguments: tuple[str, ...], code: int, said: str) -> None:
    office.keep(asked("1"))
    done = office.dead(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in " ".join(done.stderr.replace("\u2502", " ").split())
    assert "Traceback" not in done.stderr
    assert [row["status"] for row in office.rows("select status from v_dead_letter")] == ["open"]
    assert office.rows("select * from dead_letter_job") == []


def test_a_letter_is_shown_with_its_body_to_the_byte(office: Office) -> None:
    body = b'{"caf\\u00e9":  1}\n'
    [number] = office.keep(replace(asked("1"), raw=replace(asked("1").raw, body=body)))
    assert office.dead("show", str(number), "--body").stdout.encode() == body
    shown = office.dead("show", str(number)).stdout
    for part in ("method_raised", "KeyError", "message id", "asked-1"):
        assert part in shown
    assert office.ask("show", str(number))["raw"]["message_id"] == "asked-1"


def test_an_export_is_complete_and_in_the_order_of_arrival(office: Office) -> None:
    ids = office.keep(asked("1"), replace(odd("m-1"), raw=replace(odd("m-1").raw, body=b"\xff\x00 no text")))
    lines = [json.loads(line) for line in office.dead("export").stdout.splitlines()]
    assert [line["dead_letter_id"] for line in lines] == ids
    assert lines[0]["message"]["body"] == '{"order_id": "1"}'
    assert lines[0]["message"]["headers"] == [["odd", {"$bytes": "/wA="}]]
    assert lines[1]["message"]["body"] == {"$bytes": "/wAgbm8gdGV4dA=="}
    done = office.dead("export", str(ids[1]), "--output", "letters.jsonl")
    assert (done.returncode, done.stdout) == (0, "")
    assert [json.loads(line) for line in (office.folder / "letters.jsonl").read_text().splitlines()] == lines[1:]
    assert sorted(each.name for each in office.folder.glob("letters*")) == ["letters.jsonl"]
    assert_told(office.dead("export", "--output", "no/such/folder"), 1, "cannot be written")


# -- discard


def test_a_discarded_letter_stays_with_who_when_and_why(office: Office) -> None:
    first, second = office.keep(asked("1"), odd("m-1"))
    would = office.ask("discard", "--all", "--dry-run")
    assert (outcomes(would), would["dry_run"]) == (["discarded", "discarded"], True)
    assert office.ask("list", "--status", "discarded") == []
    done = office.dead("discard", str(second), "--reason", "a test order", "--actor", "ada")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 discarded")
    [gone] = office.ask("list", "--status", "discarded")
    assert (gone["dead_letter_id"], gone["resolved_by"], gone["resolved_why"]) == (second, "ada", "a test order")
    assert gone["resolved_at"] is not None
    [event] = office.ask("show", str(second))["events"]
    assert (event["kind"], event["actor"], event["why"]) == ("discarded", "ada", "a test order")
    assert [each["dead_letter_id"] for each in office.ask("list")] == [first]
    assert "discarded by ada: a test order" in office.dead("show", str(second)).stdout
    again = office.ask("discard", str(second), "--reason", "again")
    assert again["verdicts"][0]["detail"].startswith("by ada at ")


def test_a_replayed_letter_is_not_discarded(office: Office) -> None:
    [number] = office.keep(asked("1"))
    assert office.dead("replay", str(number)).returncode == 0
    done = office.dead("discard", str(number), "--reason", "too late")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "1 already replayed")
    assert re.search(r"already replayed  tiny\.Asked  by \S+ at \S+ \S+ UTC$", done.stdout, re.MULTILINE)


# -- replay


def test_a_replay_says_what_became_of_each_letter(office: Office) -> None:
    ids = office.keep(
        asked("1"),
        odd("m-1"),
        asked("2"),
        replace(asked("1"), message_id="other", raw=replace(asked("1").raw, message_id="other")),
    )
    would = office.ask("replay", "--all", "--dry-run")
    assert outcomes(would) == ["processed", "failed_again", "processed", "processed"]
    assert office.rows("select * from v_saga") == []
    done = office.dead("replay", "--all", "--reason", "deployed 1.2", "--actor", "ada", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, outcomes(said)) == (1, ["processed", "failed_again", "processed", "ignored"])
    assert [verdict["dead_letter_id"] for verdict in said["verdicts"]] == ids
    assert said["counts"] == {"processed": 2, "failed_again": 1, "ignored": 1}
    assert said["verdicts"][1]["detail"].startswith("malformed: ")
    sagas = {row["business_key"]: str(row["saga_id"]) for row in office.rows("select * from v_saga")}
    assert [verdict["saga_id"] for verdict in said["verdicts"]] == [sagas["1"], None, sagas["2"], sagas["1"]]
    letters = office.rows("select status, resolved_by, resolved_why from v_dead_letter order by dead_letter_id")
    assert [each["status"] for each in letters] == ["replayed", "open", "replayed", "replayed"]
    assert (letters[0]["resolved_by"], letters[0]["resolved_why"]) == ("ada", "deployed 1.2")
    second = office.dead("replay", *map(str, ids))
    assert (second.returncode, second.stdout.splitlines()[-1]) == (1, "3 already replayed, 1 failed again")


def test_on_a_terminal_a_replay_shows_how_far_it_is(small: Office) -> None:
    small.keep(*(asked(str(number)) for number in range(3)))
    settings = {f"ANTIPHON_{name.upper()}": value for name, value in small.settings.items()}
    shown = on_terminal(small.folder, "dead", "replay", "--all", **settings)
    assert re.search(r"dead letters .*100%", shown)
    assert "3 processed" in shown


def test_a_replay_stops_where_everything_fails_and_says_how_to_go_on(office: Office) -> None:
    office.keep(*(odd(f"m-{number}") for number in range(13)), *(asked(str(number)) for number in range(3)))
    first = office.dead("replay", "--all")
    assert first.returncode == 1
    assert first.stdout.splitlines()[-3:] == [
        "15 not tried, 1 failed again",
        "stopped there, because everything so far failed again; mend what is broken and go on with",
        "  antiphon dead replay --resume 1",
    ]
    second = office.ask("replay", "--resume", "1")
    assert (second["state"], second["counts"]) == ("stopped", {"not_tried": 15, "failed_again": 1})
    office.dead("replay", "--name", "tiny.Asked", "--limit", "1")
    assert office.dead("jobs", "1").returncode == 0  # it is only looked at
    [latest, earlier] = office.ask("jobs")
    assert [(each["job_id"], each["state"], each["judged"]) for each in (latest, earlier)] == [
        (2, "done", 1),
        (1, "stopped", 1),
    ]
    assert office.ask("jobs", "1") == second


def test_an_instance_says_which_letter_made_it_move_and_who_replayed_that_and_why(
    small: Office, antiphon: Command
) -> None:
    [number] = small.keep(asked("1"))
    assert small.dead("replay", str(number), "--reason", "deployed 1.2", "--actor", "ada").returncode == 0
    shown = " ".join(antiphon("sagas", "show", "1", **small.settings).stdout.split())
    assert f"dead_letter {number}, actor ada, why deployed 1.2" in shown


def test_what_stopped_a_replay_is_tried_first_when_it_is_resumed(small: Office) -> None:
    (small.folder / "shop.py").write_text(SAGA.replace("return cls(", "raise KeyError(") + PARTICIPANT)
    small.keep(*(asked(str(number)) for number in range(3)))
    assert small.ask("replay", "--all")["counts"] == {"failed_again": 1, "not_tried": 2}
    (small.folder / "shop.py").write_text(SAGA + PARTICIPANT)
    resumed = small.ask("replay", "--resume", "1")
    assert (resumed["state"], resumed["counts"]) == ("done", {"processed": 3})


def test_a_replay_knows_how_long_a_message_may_be(office: Office) -> None:
    longer = SAGA.replace("Do(order_id=self.order_id)", 'Do(order_id="x" * 2000)')
    (office.folder / "shop.py").write_text(longer + PARTICIPANT)
    office.settings["max_body"] = "1024"
    office.keep(asked("1"))
    office.ask("replay", "--all")
    assert office.rows("select * from v_outbox") == []
    assert [row["attention"] for row in office.rows("select * from v_saga")] == ["method_raised"]


def test_a_participants_letter_is_answered_in_the_database(office: Office) -> None:
    done, gone = office.keep(command("1"), command("leave"))
    would = office.ask("replay", "--all", "--dry-run")
    assert outcomes(would) == ["processed", "processed"]
    assert "not called for a look" in would["verdicts"][0]["detail"]
    assert office.rows("select * from participant_effect") == []
    said = office.ask("replay", str(done), str(gone))
    assert outcomes(said) == ["processed", "failed_again"]
    assert said["verdicts"][0]["detail"] == "answered with tiny.Done"
    assert "SystemExit: enough" in said["verdicts"][1]["detail"]
    assert [row["name"] for row in office.rows("select name from v_outbox")] == ["tiny.Done"]
    assert [row["status"] for row in office.rows("select status from v_dead_letter order by 1 desc")] == [
        "replayed",
        "open",
    ]
    office.keep(command("1"))
    assert outcomes(office.ask("replay", str(done))) == ["duplicate"]


def test_a_letter_of_somebody_elsewhere_is_refused_or_given_back(office: Office) -> None:
    unknown, nobodys, foreign = office.keep(
        asked("1", consumer="Other"), asked("2", consumer="shop.dead"), asked("3", consumer="billing", queue="billing")
    )
    would = {each["dead_letter_id"]: each for each in office.ask("replay", "--all", "--dry-run")["verdicts"]}
    assert would[unknown]["outcome"] == would[nobodys]["outcome"] == "failed_again"
    assert "no saga known here" in would[unknown]["detail"]
    assert "nobody knows which queue gave it up" in would[nobodys]["detail"]
    assert would[foreign]["outcome"] == "given_back"
    assert would[foreign]["detail"].startswith("to queue billing; ")
    assert office.rows("select * from v_outbox") == []


async def test_the_letter_of_a_participant_elsewhere_comes_back_to_its_queue(
    antiphon: Command, started: Callable[..., Process], folder: Path, servers: Settings
) -> None:
    run = started("run", **servers)
    run.until("process.ready")
    office = Office(antiphon, folder, servers["database_url"])
    office.settings = servers
    there, nowhere = (f"{servers['namespace']}.participant.{name}" for name in ("rival", "p"))
    async with await aio_pika.connect(servers["broker_url"]) as connection:
        queue = await (await connection.channel()).declare_queue(there, durable=True)
        given, lost = await asyncio.to_thread(
            office.keep,
            command("1", consumer="participant.rival", queue=there),
            command("2", consumer="participant.p", queue=nowhere),
        )
        done = await asyncio.to_thread(office.ask, "replay", "--all")
        arrived = await queue.get(timeout=15)
    verdicts = {each["dead_letter_id"]: each for each in done["verdicts"]}
    assert verdicts[given]["outcome"] == "given_back"
    assert verdicts[given]["detail"] == f"to queue {there}; the broker has taken it"
    assert verdicts[lost]["outcome"] == "not_taken"
    assert "still in the outbox" in verdicts[lost]["detail"]
    assert "the broker gave it back: " in verdicts[lost]["detail"]
    assert arrived is not None
    assert (arrived.message_id, arrived.type, arrived.body) == ("do-1", "tiny.Do", b'{"order_id": "1"}')


def test_an_edited_letter_takes_the_place_of_the_old_one(office: Office) -> None:
    [number] = office.keep(odd("m-1"))
    worse = office.dead("replay", str(number), "--edit", "-", stdin='{"order": "typo"}')
    assert_told(worse, 1, "edited like this it would fail again, so nothing was changed: malformed")
    (office.folder / "body.json").write_text('{"order_id": "7"}')
    would = office.ask("replay", str(number), "--edit", "body.json", "--dry-run")
    assert (outcomes(would), office.rows("select * from v_saga")) == (["processed"], [])
    assert len(office.rows("select * from v_dead_letter")) == 1
    done = office.ask("replay", str(number), "--edit", "body.json", "--reason", "typo", "--actor", "ada")
    assert outcomes(done) == ["processed"]
    assert [row["business_key"] for row in office.rows("select * from v_saga")] == ["7"]
    old, new = office.rows("select * from v_dead_letter order by dead_letter_id")
    assert (old["status"], new["status"], new["replaces"]) == ("discarded", "replayed", old["dead_letter_id"])
    assert old["resolved_why"] == f"replaced by dead letter {new['dead_letter_id']}, an edited one: typo"
    assert new["message_id"] != "m-1"
    exported = json.loads(office.dead("export", str(new["dead_letter_id"])).stdout)
    assert ["causation-id", "m-1"] in exported["message"]["headers"]
    assert [event["kind"] for event in exported["events"]] == ["edited", "replayed"]
    again = office.dead("replay", str(number), "--edit", "body.json")
    assert_told(again, 1, f"dead letter {number} is not open: discarded by ada")


def test_an_edited_letter_says_nothing_of_the_message_that_it_replaces_but_which_it_was(office: Office) -> None:
    misspelt = replace(odd("m-1"), name="tiny.Askd", raw=replace(odd("m-1").raw, type="tiny.Askd"))
    [number] = office.keep(misspelt)
    exported = json.loads(office.dead("export", str(number)).stdout)
    exported["message"] |= {"body": {"order_id": "9"}, "type": "tiny.Asked"}
    (office.folder / "edited.json").write_text(json.dumps(exported))
    would = office.dead("replay", str(number), "--edit", "edited.json", "--dry-run").stdout
    done = office.dead("replay", str(number), "--edit", "edited.json").stdout
    assert [re.findall(r"tiny\.Ask\w+", text)[:1] for text in (would, done)] == [["tiny.Asked"], ["tiny.Asked"]]
    [old, new] = office.rows("select name, reason, error_class, error from v_dead_letter order by dead_letter_id")
    assert [*old.values()] == ["tiny.Askd", "malformed", "MalformedMessage", "order_id: Field required"]
    assert [*new.values()] == ["tiny.Asked", "edited", "", f"made of dead letter {number}"]


def test_an_export_can_be_edited_too(office: Office) -> None:
    number, other = office.keep(odd("m-1"), odd("m-2"))
    exported = json.loads(office.dead("export", str(number)).stdout)
    exported["message"] |= {"body": {"order_id": "9"}, "type": "tiny.Asked"}
    wrong = office.dead("replay", str(other), "--edit", "-", stdin=json.dumps(exported))
    assert_told(wrong, 1, f"what was given is dead letter {number}, not {other}")
    broken = office.dead("replay", str(number), "--edit", "-", stdin=json.dumps({**exported, "message": {"body": 1}}))
    assert_told(broken, 1, "no message as antiphon dead export writes it")
    done = office.dead("replay", str(number), "--edit", "-", stdin=json.dumps(exported))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "1 processed")
    assert [row["business_key"] for row in office.rows("select * from v_saga")] == ["9"]


# -- jobs


def test_a_job_survives_its_process_and_does_nothing_twice(office: Office) -> None:
    office.keep(*(asked(str(number)) for number in range(30)))
    process = Process(("dead", "replay", "--all", "--rate", "10"), office.settings, office.folder)
    until(lambda: len(office.rows("select * from v_saga")) > 4, timeout=60, what="the job to be half way")
    process.kill()
    begun = len(office.rows("select * from v_saga"))
    assert begun < 30
    [job] = office.ask("jobs")
    assert (job["state"], job["letters"]) == ("running", 30)
    assert job["created_at"] < job["judged_at"]  # and no later one comes
    assert f"{job['judged']} of 30" in office.dead("jobs").stdout
    assert "it has ended early" in office.dead("jobs", "1").stdout
    done = office.ask("replay", "--resume", "1", "--rate", "1000")
    assert (done["state"], done["counts"]) == ("done", {"processed": 30})
    assert len(office.rows("select * from v_saga")) == 30
    assert len(office.rows("select * from dead_letter_event where kind = 'replayed'")) == 30
    assert office.ask("replay", "--resume", "1") == done


def test_a_job_whose_process_died_after_its_last_verdict_ends_when_it_is_resumed(office: Office) -> None:
    office.keep(asked("1"))
    done = office.ask("replay", "--all")
    office.change("update dead_letter_job set state = 'running', ended_at = null")
    assert office.ask("replay", "--resume", "1") == done
    assert [each["state"] for each in office.ask("jobs")] == ["done"]


def test_a_letter_that_the_broker_had_not_taken_is_looked_for_when_its_job_is_resumed(office: Office) -> None:
    office.keep(asked("1"))
    office.ask("replay", "--all")
    office.change("update dead_letter_job_item set outcome = 'not_taken', detail = 'to queue x; still in the outbox'")
    [verdict] = office.ask("replay", "--resume", "1")["verdicts"]
    assert (verdict["outcome"], verdict["detail"]) == ("given_back", "to queue x; the broker has taken it")


def test_two_operators_at_once_have_one_effect_per_letter(office: Office) -> None:
    office.keep(*(asked(str(number)) for number in range(25)), *(command(str(number)) for number in range(25)))
    both = [
        Process(("dead", "replay", "--all", "--json", "--actor", who), office.settings, office.folder)
        for who in ("ada", "bob")
    ]
    ends = [process.result() for process in both]
    for end in ends:
        assert end.returncode == 0, (end.stdout, end.stderr)
        assert set(outcomes(json.loads(end.stdout))) <= {"processed", "already_replayed"}
    processed = [outcomes(json.loads(end.stdout)).count("processed") for end in ends]
    assert sum(processed) == 50
    assert len(office.rows("select * from v_saga_event where kind = 'started'")) == 25
    assert len(office.rows("select * from participant_effect")) == 25
    assert len(office.rows("select * from dead_letter_event where kind = 'replayed'")) == 50


# -- what a letter says of itself


def test_what_a_letter_holds_is_told_in_its_own_words(small: Office) -> None:
    headers = {"schema-version": 1, "x-death": [{"count": 1, "time": datetime(2026, 11, 30, tzinfo=UTC)}]}
    raw = replace(asked("1").raw, headers=headers)
    [number] = small.keep(asked("1", raw=raw, source="", reason="oversize"))
    shown = small.dead("show", str(number)).stdout.splitlines()
    assert "  header schema-version 1" in shown
    assert '  header x-death        [{"count": 1, "time": "2026-11-30T00:00:00+00:00"}]' in shown
    assert "  sent by               tests" in shown  # as it says itself, though nobody read as much of it


def test_where_a_start_is_dead_lettered_whoever_asks_for_its_instance_is_told_how_to_find_it(small: Office) -> None:
    [number] = small.keep(asked("o-17"))
    done = small.dead("list", "--saga", "o-17")
    assert_told(done, 1, "no instance has the id or business key 'o-17'", "antiphon dead export | grep o-17")
    assert json.loads(small.dead("export").stdout)["dead_letter_id"] == number
    assert "o-17" in small.dead("export").stdout

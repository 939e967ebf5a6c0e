"""The tables, as SQLAlchemy metadata. Private: dashboards, operators and other services read the views.

No schema is named: the namespace is the session's search path. There are no foreign keys between them, because every
row is written under its instance's lock and hot paths would pay for the checks; integrity is the transactions' work.
The order of locks is saga, inbox, held, timer, outbox, dead letter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Identity, Index, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint, text

from storage.types import bytewise, flag, identity, moment, octets, whole
from storage.types import text as words

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

metadata = MetaData()

REVISION = "0004"
"""The migration that these tables are the result of."""


def _needed(name: str, kind: TypeEngine[Any]) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _optional(name: str, kind: TypeEngine[Any]) -> Column[Any]:
    return Column(name, kind, nullable=True)


def _key(table: str, *columns: str) -> PrimaryKeyConstraint:
    return PrimaryKeyConstraint(*columns, name=f"{table}_pkey")


def _counted(name: str) -> Column[Any]:
    return Column(name, whole, Identity(always=False), nullable=False)


saga_key = Table(
    "saga_key",
    metadata,
    _needed("saga_type", bytewise),
    _needed("key", bytewise),
    _needed("n", whole),
    _needed("saga_id", identity),
    _needed("start_id", bytewise),
    _needed("start_hash", octets),
    _needed("created_at", moment),
    _key("saga_key", "saga_type", "key", "n"),
    comment="Who owns a business key; outlives the instance.",
)

saga_alias = Table(
    "saga_alias",
    metadata,
    _needed("saga_type", bytewise),
    _needed("alias", bytewise),
    _needed("value", bytewise),
    _needed("saga_id", identity),
    _key("saga_alias", "saga_type", "alias", "value"),
    comment="Which instance has which further key; goes with the instance.",
)
Index("saga_alias_by_instance", saga_alias.c.saga_id)
Index("saga_alias_by_value", saga_alias.c.value)

saga = Table(
    "saga",
    metadata,
    _needed("saga_id", identity),
    _needed("saga_type", bytewise),
    _needed("key", bytewise),
    _needed("n", whole),
    _needed("version", whole),
    _needed("phase", words),
    _needed("paused", flag),
    _optional("waiting_for", words),
    _needed("state", octets),
    _needed("progress", octets),
    _needed("started_at", moment),
    _needed("updated_at", moment),
    _needed("deadline_at", moment),
    _optional("ended_at", moment),
    _optional("end_reason", words),
    _needed("skipped", whole),
    _needed("revision", whole),
    _needed("seq", whole),
    _optional("parent_id", identity),
    _key("saga", "saga_id"),
    comment="One row per instance; state and progress are JSON bytes.",
)
Index("saga_by_key", saga.c.saga_type, saga.c.key)
Index("saga_by_start", saga.c.started_at, saga.c.saga_id)
_CHILD = text("parent_id is not null")
Index("saga_by_parent", saga.c.parent_id, postgresql_where=_CHILD, sqlite_where=_CHILD)
_LIVE = text("phase in ('running', 'compensating')")
Index("saga_live", saga.c.saga_id, postgresql_where=_LIVE, sqlite_where=_LIVE)
_ENDED = text("ended_at is not null")
Index("saga_ended", saga.c.ended_at, saga.c.saga_id, postgresql_where=_ENDED, sqlite_where=_ENDED)

saga_event = Table(
    "saga_event",
    metadata,
    _needed("saga_id", identity),
    _needed("seq", whole),
    _needed("at", moment),
    _needed("kind", words),
    _optional("step", words),
    _optional("message_id", bytewise),
    _optional("message_name", words),
    _needed("detail", words),
    _optional("body", octets),
    _optional("patch", octets),
    _key("saga_event", "saga_id", "seq"),
    comment="History, append-only: every applied message's bytes and the patch it made.",
)

attention = Table(
    "attention",
    metadata,
    _needed("saga_id", identity),
    _needed("reason", bytewise),
    _needed("detail", words),
    _needed("since", moment),
    _key("attention", "saga_id", "reason"),
    comment="Why an instance wants an operator; each reason clears only when its own cause is healed.",
)

inbox = Table(
    "inbox",
    metadata,
    _needed("consumer", bytewise),
    _needed("source", bytewise),
    _needed("message_id", bytewise),
    _needed("body_hash", octets),
    _needed("token", identity),
    _needed("disposition", words),
    _needed("received_at", moment),
    _key("inbox", "consumer", "source", "message_id"),
    comment="The ids already handled. Not partitioned by time: its key would end at the border.",
)
Index("inbox_by_time", inbox.c.received_at)

outbox = Table(
    "outbox",
    metadata,
    _counted("outbox_id"),
    _needed("message_id", bytewise),
    _optional("saga_id", identity),
    _optional("path", bytewise),
    _optional("dead_letter_id", whole),
    _needed("name", bytewise),
    _needed("exchange", bytewise),
    _needed("routing_key", bytewise),
    _needed("body", octets),
    _needed("headers", words),
    _needed("state", words),
    _needed("maybe_sent", flag),
    _needed("came_back", flag),
    _optional("token", identity),
    _needed("next_attempt_at", moment),
    _needed("attempts", whole),
    _needed("created_at", moment),
    _optional("error", words),
    _key("outbox", "outbox_id"),
    sqlite_autoincrement=True,
    comment="Messages committed and not yet confirmed. maybe_sent: a publication may have reached the broker. "
    "came_back: the latest found no queue that took it. dead_letter_id: the letter that is given back by it.",
)
Index("outbox_by_message", outbox.c.message_id)
Index("outbox_by_path", outbox.c.saga_id, outbox.c.path, outbox.c.outbox_id)
_GIVEN_BACK = text("dead_letter_id is not null")
Index("outbox_by_letter", outbox.c.dead_letter_id, postgresql_where=_GIVEN_BACK, sqlite_where=_GIVEN_BACK)
_CAME_BACK = text("came_back")
Index("outbox_came_back", outbox.c.exchange, outbox.c.routing_key, postgresql_where=_CAME_BACK, sqlite_where=_CAME_BACK)

timer = Table(
    "timer",
    metadata,
    _needed("saga_id", identity),
    _needed("name", bytewise),
    _needed("saga_type", bytewise),
    _needed("generation", whole),
    _needed("due_at", moment),
    _optional("asked_at", moment),
    _key("timer", "saga_id", "name"),
    comment="Armed timers; generation is the history number at which it was set. asked_at: when the first of the "
    "markers was sent that have not come back.",
)
saga_item = Table(
    "saga_item",
    metadata,
    _needed("saga_id", identity),
    _needed("list_field", bytewise),
    _needed("item", whole),
    _needed("body", octets),
    _key("saga_item", "saga_id", "list_field", "item"),
    comment="The items of lists that are worked off one by one, as JSON.",
)

saga_item_step = Table(
    "saga_item_step",
    metadata,
    _needed("saga_id", identity),
    _needed("path", bytewise),
    _needed("item", whole),
    _needed("progress", octets),
    _optional("owed", whole),
    _key("saga_item_step", "saga_id", "path", "item"),
    comment="How the step of an item went that is done with for now; owed is the history number at which it ended, "
    "where it is still to be undone.",
)
_OWED = text("owed is not null")
Index(
    "saga_item_owed",
    saga_item_step.c.saga_id,
    saga_item_step.c.path,
    saga_item_step.c.owed,
    postgresql_where=_OWED,
    sqlite_where=_OWED,
)
Index("timer_due", timer.c.due_at)
_ASKED = text("asked_at is not null")
Index("timer_asked", timer.c.asked_at, postgresql_where=_ASKED, sqlite_where=_ASKED)

held = Table(
    "held",
    metadata,
    _counted("held_id"),
    _needed("saga_type", bytewise),
    _needed("source", bytewise),
    _needed("message_id", bytewise),
    _needed("body_hash", octets),
    _optional("business_key", bytewise),
    _optional("saga_id", identity),
    _needed("name", bytewise),
    _needed("schema_version", whole),
    _needed("reason", words),
    _needed("body", octets),
    _needed("properties", words),
    _needed("received_at", moment),
    _optional("expires_at", moment),
    _optional("alias", bytewise),
    _key("held", "held_id"),
    UniqueConstraint("saga_type", "source", "message_id", name="held_once"),
    sqlite_autoincrement=True,
    comment="Valid messages that cannot be applied yet, raw.",
)
Index("held_by_key", held.c.saga_type, held.c.business_key)
_BY_INSTANCE = text("saga_id is not null")
Index("held_by_instance", held.c.saga_id, postgresql_where=_BY_INSTANCE, sqlite_where=_BY_INSTANCE)

dead_letter = Table(
    "dead_letter",
    metadata,
    _counted("dead_letter_id"),
    _needed("consumer", bytewise),
    _needed("source", bytewise),
    _needed("message_id", bytewise),
    _needed("name", bytewise),
    _needed("body_hash", octets),
    _needed("body", octets),
    _needed("properties", words),
    _needed("reason", words),
    _needed("error_class", words),
    _needed("error", words),
    _optional("saga_id", identity),
    _optional("queue", bytewise),
    _optional("replaces", whole),
    _needed("first_seen_at", moment),
    _needed("last_seen_at", moment),
    _needed("copies", whole),
    _needed("status", words),
    _optional("resolved_at", moment),
    _optional("resolved_by", words),
    _optional("resolved_why", words),
    _optional("replayed_seq", whole),
    _key("dead_letter", "dead_letter_id"),
    UniqueConstraint("consumer", "source", "message_id", "body_hash", name="dead_letter_once"),
    sqlite_autoincrement=True,
    comment="Messages nobody could process, raw and complete.",
)
_OPEN = text("status = 'open'")
Index("dead_letter_open", dead_letter.c.last_seen_at, postgresql_where=_OPEN, sqlite_where=_OPEN)
_RESOLVED = text("resolved_at is not null")
Index("dead_letter_resolved", dead_letter.c.resolved_at, postgresql_where=_RESOLVED, sqlite_where=_RESOLVED)
Index("dead_letter_by_instance", dead_letter.c.saga_id, postgresql_where=_BY_INSTANCE, sqlite_where=_BY_INSTANCE)

dead_letter_event = Table(
    "dead_letter_event",
    metadata,
    _counted("event_id"),
    _needed("dead_letter_id", whole),
    _needed("at", moment),
    _needed("kind", words),
    _needed("actor", words),
    _needed("why", words),
    _optional("request_id", bytewise),
    _optional("outcome", words),
    _needed("detail", words),
    _optional("saga_id", identity),
    _optional("seq", whole),
    _key("dead_letter_event", "event_id"),
    sqlite_autoincrement=True,
    comment="What was done with dead letters: who, when, why, and what came of it.",
)
Index("dead_letter_event_by_letter", dead_letter_event.c.dead_letter_id, dead_letter_event.c.event_id)

dead_letter_job = Table(
    "dead_letter_job",
    metadata,
    _counted("job_id"),
    _needed("actor", words),
    _needed("why", words),
    _needed("wanted", words),
    _needed("created_at", moment),
    _needed("state", words),
    _optional("ended_at", moment),
    _key("dead_letter_job", "job_id"),
    sqlite_autoincrement=True,
    comment="Replays of many dead letters; wanted is JSON: the filter, the limit, the rate.",
)

dead_letter_job_item = Table(
    "dead_letter_job_item",
    metadata,
    _needed("job_id", whole),
    _needed("position", whole),
    _needed("dead_letter_id", whole),
    _optional("outcome", words),
    _optional("detail", words),
    _optional("at", moment),
    _key("dead_letter_job_item", "job_id", "position"),
    comment="The letters of a job in the order of their turn, with the verdict on each.",
)

definition = Table(
    "definition",
    metadata,
    _needed("type", bytewise),
    _needed("version", whole),
    _needed("document", words),
    _needed("shape", words),
    _needed("state", words),
    _needed("policy", words),
    _needed("code", words),
    _needed("recorded_at", moment),
    _needed("python", words),
    _key("definition", "type", "version"),
    comment="Every definition version that ever ran, with the digests of its four parts.",
)

definition_message = Table(
    "definition_message",
    metadata,
    _needed("name", bytewise),
    _needed("role", words),
    _needed("type", bytewise),
    _needed("version", whole),
    _key("definition_message", "name", "role", "type", "version"),
    comment="Which message names the definitions send (role command) and consume (role event).",
)

participant_message = Table(
    "participant_message",
    metadata,
    _needed("participant", bytewise),
    _needed("message_id", bytewise),
    _needed("source", bytewise),
    _needed("body_hash", octets),
    _optional("idempotency_key", bytewise),
    _optional("reply_id", bytewise),
    _optional("reply_name", bytewise),
    _optional("reply_version", whole),
    _optional("reply_body", octets),
    _needed("received_at", moment),
    _key("participant_message", "participant", "message_id"),
    comment="The commands a participant has handled, with the reply it gave: a repeated id gets it again.",
)

participant_effect = Table(
    "participant_effect",
    metadata,
    _needed("participant", bytewise),
    _needed("idempotency_key", bytewise),
    _needed("status", words),
    _optional("reply_name", bytewise),
    _optional("reply_version", whole),
    _optional("reply_body", octets),
    _needed("at", moment),
    _key("participant_effect", "participant", "idempotency_key"),
    comment="The idempotency-keys a participant has applied, and tombstones of those undone before they came.",
)

suspect = Table(
    "suspect",
    metadata,
    _needed("consumer", bytewise),
    _needed("source", bytewise),
    _needed("message_id", bytewise),
    _needed("body_hash", octets),
    _needed("life", identity),
    _needed("noted_at", moment),
    _key("suspect", "consumer", "source", "message_id", "body_hash", "life"),
    comment="What may have killed a process: one row for each life that met it alone and has not said how it went.",
)

STORAGE_PARAMETERS = {
    "saga": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02",
    "timer": "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000",
    "outbox": "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000",
    "inbox": "fillfactor = 90, autovacuum_vacuum_insert_scale_factor = 0.05",
}
"""PostgreSQL: room for updates in place, and a vacuum that keeps up with tables whose rows come and go."""

CHANGED_MEANWHILE = """
create function changed_meanwhile() returns bigint language plpgsql as $$
begin
    raise exception 'what was decided on has changed meanwhile' using errcode = 'serialization_failure';
end
$$
"""
"""PostgreSQL: what a statement calls that saves what was decided without locks, when somebody else was first."""

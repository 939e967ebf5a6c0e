"""The first tables, the read-only views, and the door for other services in the same PostgreSQL database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WORDS = sa.Text()
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean(create_constraint=False)
OCTETS = sa.LargeBinary()
MOMENT = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
IDENTITY = sa.Uuid().with_variant(sa.Text(), "sqlite")
BYTEWISE = postgresql.TEXT(collation="C").with_variant(sa.Text(), "sqlite")

TABLES = (
    "saga_key",
    "saga",
    "saga_event",
    "attention",
    "inbox",
    "outbox",
    "timer",
    "held",
    "dead_letter",
    "dead_letter_event",
    "dead_letter_job",
    "dead_letter_job_item",
    "definition",
    "definition_message",
    "participant_message",
    "participant_effect",
    "suspect",
)

STORAGE_PARAMETERS = {
    "saga": "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02",
    "timer": "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000",
    "outbox": "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000",
    "inbox": "fillfactor = 90, autovacuum_vacuum_insert_scale_factor = 0.05",
}

POSTGRESQL_VIEWS = (
    """
create view v_saga as
select saga_id, saga_type, business_key, version,
       case when attention in ('method_raised', 'undo_needs_reply', 'compensation_failed', 'compensation_exhausted')
            then 'parked' else phase end as status,
       phase, paused, attention, waiting_for, started_at, updated_at, deadline_at, ended_at, end_reason, skipped,
       revision
from (
    select s.saga_id, s.saga_type, s.key as business_key, s.version, s.phase, s.paused, (
        select a.reason from attention a where a.saga_id = s.saga_id
        order by case a.reason
            when 'method_raised' then 0
            when 'undo_needs_reply' then 1
            when 'compensation_failed' then 2
            when 'compensation_exhausted' then 3
            when 'orphaned_effect' then 4
            when 'stalled' then 5
            when 'version_missing' then 6
            when 'unroutable' then 7
            when 'refused' then 8
            when 'timer_overdue' then 9
            when 'outbox_overdue' then 10
            when 'marker_overdue' then 11
            else 12 end, a.reason limit 1
    ) as attention,
           s.waiting_for, s.started_at, s.updated_at, s.deadline_at, s.ended_at, s.end_reason, s.skipped, s.revision
    from saga s
) as instance
""",
    """
create view v_saga_event as
select saga_id, seq, at, kind, step, message_id, message_name, cast(detail as json) as detail from saga_event
""",
    """
create view v_outbox as
select message_id, saga_id, name,
       case when state = 'claimed' and next_attempt_at < clock_timestamp()
            then 'unknown' else state end as state,
       created_at, attempts, next_attempt_at,
       (state in ('returned', 'refused') or attempts >= 10
        or created_at < clock_timestamp() - interval '10 minutes') as stuck, error
from outbox
""",
    """
create view v_timer as
select saga_id, name, generation, due_at from timer
""",
    """
create view v_held as
select saga_id, saga_type, business_key, message_id, name, reason, received_at, expires_at from held
""",
    """
create view v_inbox as
select consumer, source, message_id, received_at, disposition from inbox
""",
    """
create view v_dead_letter as
select dead_letter_id, consumer, message_id, name, reason, error, saga_id, first_seen_at, copies, status,
       error_class, queue, replaces, last_seen_at, resolved_at, resolved_by, resolved_why, replayed_seq
from dead_letter
""",
)

SQLITE_VIEWS = (
    """
create view v_saga as
select saga_id, saga_type, business_key, version,
       case when attention in ('method_raised', 'undo_needs_reply', 'compensation_failed', 'compensation_exhausted')
            then 'parked' else phase end as status,
       phase, paused, attention, waiting_for, started_at, updated_at, deadline_at, ended_at, end_reason, skipped,
       revision
from (
    select s.saga_id, s.saga_type, s.key as business_key, s.version, s.phase, s.paused, (
        select a.reason from attention a where a.saga_id = s.saga_id
        order by case a.reason
            when 'method_raised' then 0
            when 'undo_needs_reply' then 1
            when 'compensation_failed' then 2
            when 'compensation_exhausted' then 3
            when 'orphaned_effect' then 4
            when 'stalled' then 5
            when 'version_missing' then 6
            when 'unroutable' then 7
            when 'refused' then 8
            when 'timer_overdue' then 9
            when 'outbox_overdue' then 10
            when 'marker_overdue' then 11
            else 12 end, a.reason limit 1
    ) as attention,
           s.waiting_for, s.started_at, s.updated_at, s.deadline_at, s.ended_at, s.end_reason, s.skipped, s.revision
    from saga s
) as instance
""",
    """
create view v_saga_event as
select saga_id, seq, at, kind, step, message_id, message_name, detail as detail from saga_event
""",
    """
create view v_outbox as
select message_id, saga_id, name,
       case when state = 'claimed' and next_attempt_at < strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
            then 'unknown' else state end as state,
       created_at, attempts, next_attempt_at,
       (state in ('returned', 'refused') or attempts >= 10
        or created_at < strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-10 minutes')) as stuck, error
from outbox
""",
    """
create view v_timer as
select saga_id, name, generation, due_at from timer
""",
    """
create view v_held as
select saga_id, saga_type, business_key, message_id, name, reason, received_at, expires_at from held
""",
    """
create view v_inbox as
select consumer, source, message_id, received_at, disposition from inbox
""",
    """
create view v_dead_letter as
select dead_letter_id, consumer, message_id, name, reason, error, saga_id, first_seen_at, copies, status,
       error_class, queue, replaces, last_seen_at, resolved_at, resolved_by, resolved_why, replayed_seq
from dead_letter
""",
)

VIEWS = ("v_saga", "v_saga_event", "v_outbox", "v_timer", "v_held", "v_inbox", "v_dead_letter")

DOOR = (
    r"""
create function check_body(name text, body text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $check$
declare
    top text;
    deepest integer;
    twice text;
    problem text;
    place text;
    number text;
    before text;
    whole boolean;
begin
    begin
        top := json_typeof(check_body.body::json);
        if top = 'object' then
            -- json_each reads every escape on its way, and raises at one that stands for no character
            with recursive part(depth, kind, json) as (
                select 1, 'object', check_body.body::json
                union all
                select depth + 1, json_typeof(inside.json), inside.json
                from part, lateral (
                    select value from json_each(case kind when 'object' then part.json end)
                    union all
                    select value from json_array_elements(case kind when 'array' then part.json end)
                ) as inside(json)
                where depth <= 64 and json_typeof(inside.json) in ('object', 'array')
            ), keys(id, key) as (
                select id, json_object_keys(json)
                from (select row_number() over () as id, json from part where kind = 'object') as object
            )
            select max(depth), (select key from keys group by id, key having count(*) > 1 limit 1)
            into deepest, twice from part;
        end if;
    exception
        when statement_too_complex then
            deepest := 64 + 1;
        when data_exception or program_limit_exceeded then
            get stacked diagnostics problem = pg_exception_detail, place = pg_exception_context;
            raise exception 'publish: the body of % is not JSON: %', name,
                case problem when '' then sqlerrm else problem || ' (' || split_part(place, E'\n', 1) || ')' end
                using errcode = 'invalid_parameter_value',
                      hint = 'Give one JSON object as text, without \u0000 and halves of surrogate pairs.';
    end;
    if deepest > 64 then
        raise exception 'publish: the body of % is nested deeper than 64 levels', name
            using errcode = 'invalid_parameter_value', hint = 'Publish it flatter.';
    end if;
    if top <> 'object' then
        raise exception 'publish: the body of % is a JSON %, not an object', name, top
            using errcode = 'invalid_parameter_value', hint = 'Give one JSON object as text.';
    end if;
    if twice is not null then
        raise exception 'publish: the body of % has the key % twice in one object', name, to_json(left(twice, 60))
            using errcode = 'invalid_parameter_value', hint = 'Give it once; readers disagree on which one counts.';
    end if;
    -- fewer digits and shorter exponents are never too large, so that almost no body needs the look at each number
    if check_body.body !~ '[0-9]{19}|[0-9][eE][-+]?0*[1-9][0-9]{2}' then
        return;
    end if;
    select left(token, 40), left(token_before, 60), token !~ '[.eE]' into number, before, whole
    from (
        select piece[1] as token, lag(piece[1]) over (order by at) as token_before
        from regexp_matches(check_body.body, '"(?:[^"\\]|\\.)*"|-?[0-9][-+.0-9eE]*', 'g')
             with ordinality as pieces(piece, at)
    ) as tokens, regexp_match(token, '^-?([0-9]+)\.?([0-9]*)[eE]?([-+]?)0*([0-9]*)$') as digits
    where case
        when digits is null then false -- it is a text
        when token !~ '[.eE]' then
            length(token) > 20 or left(token, 20)::numeric not between -9223372036854775808 and 9223372036854775807
        else -- half a step above the largest 64-bit float, rounding to infinity begins
            length(digits[1]) > 2000 or length(digits[4]) > 3
            or (left(digits[1], 2000) || '.' || left(digits[2], 2000) || 'e' || digits[3] || '0' || left(digits[4], 3)
               )::numeric >= 2::numeric ^ 1024 - 2::numeric ^ 970
    end
    limit 1;
    if found then
        raise exception 'publish: the body of % has the number % after %, which %', name, number, before,
            case when whole then 'does not fit into 64 bits' else 'is out of the range of 64-bit floats' end
            using errcode = 'invalid_parameter_value', hint = 'Give it as a string.';
    end if;
end
$check$
""",
    r"""
create function publish(
    name text,
    body text,
    message_id text default gen_random_uuid()::text,
    headers jsonb default '{}',
    order_key text default null
) returns text
language plpgsql
security definer
set search_path = "{namespace}", pg_temp
as $door$
declare
    allowed constant text[] := array['schema-version', 'causation-id', 'correlation-id', 'traceparent', 'tracestate'];
    bytes constant bytea := convert_to(publish.body, 'UTF8');
    envelope jsonb := '{}';
    header text;
    value jsonb;
    words text;
    correct boolean;
begin
    if publish.name is null or publish.name !~ '^[A-Za-z][A-Za-z0-9_.-]{0,254}$' then
        raise exception 'publish: % is not a message name', coalesce(quote_literal(left(publish.name, 300)), 'null')
            using errcode = 'invalid_parameter_value',
                  hint = 'Write at most 255 letters, digits, "_", "." and "-", beginning with a letter.';
    end if;
    if publish.name = 'antiphon.GiveUp' then
        raise exception 'publish: % is a message of the engine itself', publish.name
            using errcode = 'invalid_parameter_value', hint = 'Give the event a name of its own.';
    end if;
    if exists (select from definition_message m where m.name = publish.name and m.role = 'command') then
        raise exception 'publish: % is a command', publish.name
            using errcode = 'invalid_parameter_value',
                  hint = 'Only events go through this door; a saga sends its commands itself.';
    end if;
    if publish.message_id is null or publish.message_id !~ '^[\x20-\x7e]{1,255}$' then
        raise exception 'publish: the message id of % is not 1 to 255 printable ASCII characters', publish.name
            using errcode = 'invalid_parameter_value',
                  hint = 'Leave message_id out for a fresh one, or give a UUID.';
    end if;
    if bytes is null or length(bytes) > 1048576 then
        raise exception 'publish: the body of % has % bytes; it needs 2 to 1048576', publish.name,
            coalesce(length(bytes), 0)
            using errcode = 'invalid_parameter_value',
                  hint = 'Publish a reference instead of the data.';
    end if;
    perform check_body(publish.name, publish.body);
    if publish.headers is null or jsonb_typeof(publish.headers) <> 'object' then
        raise exception 'publish: the headers of % are not a JSON object', publish.name
            using errcode = 'invalid_parameter_value', hint = 'Leave them out, or give ''{"schema-version": 1}''.';
    end if;
    if publish.headers <> '{}' then
        for header, value in select h.key, h.value from jsonb_each(publish.headers) as h loop
            if header <> all (allowed) then
                raise exception 'publish: % carries the header %, which no event has',
                    publish.name, quote_literal(header)
                    using errcode = 'invalid_parameter_value',
                          hint = 'Known headers: ' || array_to_string(allowed, ', ') || '.';
            end if;
            words := value #>> '{}';
            correct := case header
                when 'schema-version' then
                    jsonb_typeof(value) in ('number', 'string')
                    and words ~ '^[0-9]{1,10}$' and lpad(words, 10, '0') between '0000000001' and '2147483647'
                else
                    jsonb_typeof(value) = 'string' and words ~ '^[\x20-\x7e]+$'
                    and length(words) <= case header when 'tracestate' then 512 else 255 end
            end;
            if not correct then
                raise exception 'publish: the header % of % has an impossible value', header, publish.name
                    using errcode = 'invalid_parameter_value',
                          hint = 'schema-version is a whole number from 1 to 2147483647; the others are texts of 1 to '
                              || '255 printable ASCII characters, tracestate of 1 to 512.';
            end if;
            envelope := envelope || jsonb_build_object(
                replace(header, '-', '_'),
                case header when 'schema-version' then to_jsonb(words::integer) else value end
            );
        end loop;
    end if;
    if publish.order_key !~ '^[^\x01-\x1f\x7f-\x9f]{1,255}$' then
        raise exception 'publish: the order key of % is not 1 to 255 characters free of control characters',
            publish.name
            using errcode = 'invalid_parameter_value', hint = 'Use the business key, or leave it out.';
    end if;
    if publish.order_key is not null then
        perform pg_advisory_xact_lock(hashtextextended('{namespace}/' || publish.order_key, 0));
    end if;
    insert into outbox (
        message_id, path, name, exchange, routing_key, body, headers,
        state, maybe_sent, came_back, next_attempt_at, attempts, created_at
    ) values (
        publish.message_id, publish.order_key, publish.name, '{namespace}.events', publish.name,
        bytes, (envelope || jsonb_build_object('source', session_user, 'timestamp', clock_timestamp()))::text,
        'new', false, false, clock_timestamp(), 0, clock_timestamp()
    );
    return publish.message_id;
end
$door$
""",
    "revoke all on function check_body(text, text), publish(text, text, text, jsonb, text) from public",
)

# A statement that saves what was decided without locks calls it when somebody else was first, and so undoes itself.
CHANGED_MEANWHILE = """
create function changed_meanwhile() returns bigint language plpgsql as $$
begin
    raise exception 'what was decided on has changed meanwhile' using errcode = 'serialization_failure';
end
$$
"""


def upgrade() -> None:
    op.create_table(
        "saga_key",
        sa.Column("saga_type", BYTEWISE, nullable=False),
        sa.Column("key", BYTEWISE, nullable=False),
        sa.Column("n", WHOLE, nullable=False),
        sa.Column("saga_id", IDENTITY, nullable=False),
        sa.Column("start_id", BYTEWISE, nullable=False),
        sa.Column("start_hash", OCTETS, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("saga_type", "key", "n", name="saga_key_pkey"),
        comment="Who owns a business key; outlives the instance.",
    )
    op.create_table(
        "saga",
        sa.Column("saga_id", IDENTITY, nullable=False),
        sa.Column("saga_type", BYTEWISE, nullable=False),
        sa.Column("key", BYTEWISE, nullable=False),
        sa.Column("n", WHOLE, nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sa.Column("phase", WORDS, nullable=False),
        sa.Column("paused", FLAG, nullable=False),
        sa.Column("waiting_for", WORDS, nullable=True),
        sa.Column("state", OCTETS, nullable=False),
        sa.Column("progress", OCTETS, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("deadline_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("end_reason", WORDS, nullable=True),
        sa.Column("skipped", WHOLE, nullable=False),
        sa.Column("revision", WHOLE, nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("saga_id", name="saga_pkey"),
        comment="One row per instance; state and progress are JSON bytes.",
    )
    op.create_index("saga_by_key", "saga", ["saga_type", "key"])
    op.create_index("saga_by_start", "saga", ["started_at", "saga_id"])
    _where("saga_ended", "saga", ["ended_at", "saga_id"], "ended_at is not null")
    _where("saga_live", "saga", ["saga_id"], "phase in ('running', 'compensating')")
    op.create_table(
        "saga_event",
        sa.Column("saga_id", IDENTITY, nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", WORDS, nullable=False),
        sa.Column("step", WORDS, nullable=True),
        sa.Column("message_id", BYTEWISE, nullable=True),
        sa.Column("message_name", WORDS, nullable=True),
        sa.Column("detail", WORDS, nullable=False),
        sa.Column("body", OCTETS, nullable=True),
        sa.Column("patch", OCTETS, nullable=True),
        sa.PrimaryKeyConstraint("saga_id", "seq", name="saga_event_pkey"),
        comment="History, append-only: every applied message's bytes and the patch it made.",
    )
    op.create_table(
        "attention",
        sa.Column("saga_id", IDENTITY, nullable=False),
        sa.Column("reason", BYTEWISE, nullable=False),
        sa.Column("detail", WORDS, nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("saga_id", "reason", name="attention_pkey"),
        comment="Why an instance wants an operator; each reason clears only when its own cause is healed.",
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", BYTEWISE, nullable=False),
        sa.Column("source", BYTEWISE, nullable=False),
        sa.Column("message_id", BYTEWISE, nullable=False),
        sa.Column("body_hash", OCTETS, nullable=False),
        sa.Column("token", IDENTITY, nullable=False),
        sa.Column("disposition", WORDS, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("consumer", "source", "message_id", name="inbox_pkey"),
        comment="The ids already handled. Not partitioned by time: its key would end at the border.",
    )
    op.create_index("inbox_by_time", "inbox", ["received_at"])
    op.create_table(
        "outbox",
        sa.Column("outbox_id", WHOLE, sa.Identity(always=False), nullable=False),
        sa.Column("message_id", BYTEWISE, nullable=False),
        sa.Column("saga_id", IDENTITY, nullable=True),
        sa.Column("path", BYTEWISE, nullable=True),
        sa.Column("dead_letter_id", WHOLE, nullable=True),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("exchange", BYTEWISE, nullable=False),
        sa.Column("routing_key", BYTEWISE, nullable=False),
        sa.Column("body", OCTETS, nullable=False),
        sa.Column("headers", WORDS, nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("maybe_sent", FLAG, nullable=False),
        sa.Column("came_back", FLAG, nullable=False),
        sa.Column("token", IDENTITY, nullable=True),
        sa.Column("next_attempt_at", MOMENT, nullable=False),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("error", WORDS, nullable=True),
        sa.PrimaryKeyConstraint("outbox_id", name="outbox_pkey"),
        sqlite_autoincrement=True,
        comment="Messages committed and not yet confirmed. maybe_sent: a publication may have reached the broker. "
        "came_back: the latest found no queue that took it. dead_letter_id: the letter that is given back by it.",
    )
    op.create_index("outbox_by_message", "outbox", ["message_id"])
    op.create_index("outbox_by_path", "outbox", ["saga_id", "path", "outbox_id"])
    _where("outbox_by_letter", "outbox", ["dead_letter_id"], "dead_letter_id is not null")
    _where("outbox_came_back", "outbox", ["exchange", "routing_key"], "came_back")
    op.create_table(
        "timer",
        sa.Column("saga_id", IDENTITY, nullable=False),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("saga_type", BYTEWISE, nullable=False),
        sa.Column("generation", WHOLE, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("asked_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("saga_id", "name", name="timer_pkey"),
        comment="Armed timers; generation is the history number at which it was set. asked_at: when the first of the "
        "markers was sent that have not come back.",
    )
    op.create_index("timer_due", "timer", ["due_at"])
    _where("timer_asked", "timer", ["asked_at"], "asked_at is not null")
    op.create_table(
        "held",
        sa.Column("held_id", WHOLE, sa.Identity(always=False), nullable=False),
        sa.Column("saga_type", BYTEWISE, nullable=False),
        sa.Column("source", BYTEWISE, nullable=False),
        sa.Column("message_id", BYTEWISE, nullable=False),
        sa.Column("body_hash", OCTETS, nullable=False),
        sa.Column("business_key", BYTEWISE, nullable=True),
        sa.Column("saga_id", IDENTITY, nullable=True),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("schema_version", WHOLE, nullable=False),
        sa.Column("reason", WORDS, nullable=False),
        sa.Column("body", OCTETS, nullable=False),
        sa.Column("properties", WORDS, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("held_id", name="held_pkey"),
        sa.UniqueConstraint("saga_type", "source", "message_id", name="held_once"),
        sqlite_autoincrement=True,
        comment="Valid messages that cannot be applied yet, raw.",
    )
    _where("held_by_instance", "held", ["saga_id"], "saga_id is not null")
    op.create_index("held_by_key", "held", ["saga_type", "business_key"])
    op.create_table(
        "dead_letter",
        sa.Column("dead_letter_id", WHOLE, sa.Identity(always=False), nullable=False),
        sa.Column("consumer", BYTEWISE, nullable=False),
        sa.Column("source", BYTEWISE, nullable=False),
        sa.Column("message_id", BYTEWISE, nullable=False),
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("body_hash", OCTETS, nullable=False),
        sa.Column("body", OCTETS, nullable=False),
        sa.Column("properties", WORDS, nullable=False),
        sa.Column("reason", WORDS, nullable=False),
        sa.Column("error_class", WORDS, nullable=False),
        sa.Column("error", WORDS, nullable=False),
        sa.Column("saga_id", IDENTITY, nullable=True),
        sa.Column("queue", BYTEWISE, nullable=True),
        sa.Column("replaces", WHOLE, nullable=True),
        sa.Column("first_seen_at", MOMENT, nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.Column("copies", WHOLE, nullable=False),
        sa.Column("status", WORDS, nullable=False),
        sa.Column("resolved_at", MOMENT, nullable=True),
        sa.Column("resolved_by", WORDS, nullable=True),
        sa.Column("resolved_why", WORDS, nullable=True),
        sa.Column("replayed_seq", WHOLE, nullable=True),
        sa.PrimaryKeyConstraint("dead_letter_id", name="dead_letter_pkey"),
        sa.UniqueConstraint("consumer", "source", "message_id", "body_hash", name="dead_letter_once"),
        sqlite_autoincrement=True,
        comment="Messages nobody could process, raw and complete.",
    )
    _where("dead_letter_by_instance", "dead_letter", ["saga_id"], "saga_id is not null")
    _where("dead_letter_open", "dead_letter", ["last_seen_at"], "status = 'open'")
    _where("dead_letter_resolved", "dead_letter", ["resolved_at"], "resolved_at is not null")
    op.create_table(
        "dead_letter_event",
        sa.Column("event_id", WHOLE, sa.Identity(always=False), nullable=False),
        sa.Column("dead_letter_id", WHOLE, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", WORDS, nullable=False),
        sa.Column("actor", WORDS, nullable=False),
        sa.Column("why", WORDS, nullable=False),
        sa.Column("request_id", BYTEWISE, nullable=True),
        sa.Column("outcome", WORDS, nullable=True),
        sa.Column("detail", WORDS, nullable=False),
        sa.Column("saga_id", IDENTITY, nullable=True),
        sa.Column("seq", WHOLE, nullable=True),
        sa.PrimaryKeyConstraint("event_id", name="dead_letter_event_pkey"),
        sqlite_autoincrement=True,
        comment="What was done with dead letters: who, when, why, and what came of it.",
    )
    op.create_index("dead_letter_event_by_letter", "dead_letter_event", ["dead_letter_id", "event_id"])
    op.create_table(
        "dead_letter_job",
        sa.Column("job_id", WHOLE, sa.Identity(always=False), nullable=False),
        sa.Column("actor", WORDS, nullable=False),
        sa.Column("why", WORDS, nullable=False),
        sa.Column("wanted", WORDS, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="dead_letter_job_pkey"),
        sqlite_autoincrement=True,
        comment="Replays of many dead letters; wanted is JSON: the filter, the limit, the rate.",
    )
    op.create_table(
        "dead_letter_job_item",
        sa.Column("job_id", WHOLE, nullable=False),
        sa.Column("position", WHOLE, nullable=False),
        sa.Column("dead_letter_id", WHOLE, nullable=False),
        sa.Column("outcome", WORDS, nullable=True),
        sa.Column("detail", WORDS, nullable=True),
        sa.Column("at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("job_id", "position", name="dead_letter_job_item_pkey"),
        comment="The letters of a job in the order of their turn, with the verdict on each.",
    )
    op.create_table(
        "definition",
        sa.Column("type", BYTEWISE, nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sa.Column("document", WORDS, nullable=False),
        sa.Column("shape", WORDS, nullable=False),
        sa.Column("state", WORDS, nullable=False),
        sa.Column("policy", WORDS, nullable=False),
        sa.Column("code", WORDS, nullable=False),
        sa.Column("recorded_at", MOMENT, nullable=False),
        sa.Column("python", WORDS, nullable=False),
        sa.PrimaryKeyConstraint("type", "version", name="definition_pkey"),
        comment="Every definition version that ever ran, with the digests of its four parts.",
    )
    op.create_table(
        "definition_message",
        sa.Column("name", BYTEWISE, nullable=False),
        sa.Column("role", WORDS, nullable=False),
        sa.Column("type", BYTEWISE, nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("name", "role", "type", "version", name="definition_message_pkey"),
        comment="Which message names the definitions send (role command) and consume (role event).",
    )
    op.create_table(
        "participant_message",
        sa.Column("participant", BYTEWISE, nullable=False),
        sa.Column("message_id", BYTEWISE, nullable=False),
        sa.Column("source", BYTEWISE, nullable=False),
        sa.Column("body_hash", OCTETS, nullable=False),
        sa.Column("idempotency_key", BYTEWISE, nullable=True),
        sa.Column("reply_id", BYTEWISE, nullable=True),
        sa.Column("reply_name", BYTEWISE, nullable=True),
        sa.Column("reply_version", WHOLE, nullable=True),
        sa.Column("reply_body", OCTETS, nullable=True),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("participant", "message_id", name="participant_message_pkey"),
        comment="The commands a participant has handled, with the reply it gave: a repeated id gets it again.",
    )
    op.create_table(
        "participant_effect",
        sa.Column("participant", BYTEWISE, nullable=False),
        sa.Column("idempotency_key", BYTEWISE, nullable=False),
        sa.Column("status", WORDS, nullable=False),
        sa.Column("reply_name", BYTEWISE, nullable=True),
        sa.Column("reply_version", WHOLE, nullable=True),
        sa.Column("reply_body", OCTETS, nullable=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("participant", "idempotency_key", name="participant_effect_pkey"),
        comment="The idempotency-keys a participant has applied, and tombstones of those undone before they came.",
    )
    op.create_table(
        "suspect",
        sa.Column("consumer", BYTEWISE, nullable=False),
        sa.Column("source", BYTEWISE, nullable=False),
        sa.Column("message_id", BYTEWISE, nullable=False),
        sa.Column("body_hash", OCTETS, nullable=False),
        sa.Column("life", IDENTITY, nullable=False),
        sa.Column("noted_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("consumer", "source", "message_id", "body_hash", "life", name="suspect_pkey"),
        comment="What may have killed a process: one row for each life that met it alone and has not said how it went.",
    )
    if _on_postgresql():
        _upgrade_postgresql()
    else:
        for view in SQLITE_VIEWS:
            op.execute(view)


def _upgrade_postgresql() -> None:
    for table, parameters in STORAGE_PARAMETERS.items():
        op.execute(f"alter table {table} set ({parameters})")
    for view in POSTGRESQL_VIEWS:
        op.execute(view)
    namespace = op.get_context().opts["namespace"]
    for statement in DOOR:
        op.execute(statement.replace("{namespace}", namespace))
    op.execute(CHANGED_MEANWHILE)


def _where(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)


def _on_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def downgrade() -> None:
    if _on_postgresql():
        op.execute("drop function publish(text, text, text, jsonb, text), check_body(text, text), changed_meanwhile()")
    for view in reversed(VIEWS):
        op.execute(f"drop view {view}")
    for table in reversed(TABLES):
        op.drop_table(table)

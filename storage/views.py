"""The read-only views, which are public contract, and the door for other services in the same PostgreSQL database.

Columns are only added. Readers accept words they do not know. Texts are complete statements; those for PostgreSQL find
and make their names in the session's search path.
"""

from __future__ import annotations

from sagas.instance import PARKING

_GRAVITY = (*PARKING, "orphaned_effect", "unroutable", "version_missing", "timer_overdue")
"""Reasons for attention, the gravest first; whatever else there is comes after them, in alphabetical order."""

_STUCK_ATTEMPTS = 10
_STUCK_MINUTES = 10


def _rank(column: str) -> str:
    ranks = "".join(f"\n            when '{reason}' then {rank}" for rank, reason in enumerate(_GRAVITY))
    return f"case {column}{ranks}\n            else {len(_GRAVITY)} end"


def _saga() -> str:
    parking = ", ".join(f"'{reason}'" for reason in PARKING)
    gravest = f"""
        select a.reason from attention a where a.saga_id = s.saga_id
        order by {_rank("a.reason")}, a.reason limit 1
    """
    return f"""
create view v_saga as
select saga_id, saga_type, business_key, version,
       case when attention in ({parking})
            then 'parked' else phase end as status,
       phase, paused, attention, waiting_for, started_at, updated_at, deadline_at, ended_at, end_reason, skipped,
       revision
from (
    select s.saga_id, s.saga_type, s.key as business_key, s.version, s.phase, s.paused, ({gravest}) as attention,
           s.waiting_for, s.started_at, s.updated_at, s.deadline_at, s.ended_at, s.end_reason, s.skipped, s.revision
    from saga s
) as instance
"""


def _saga_event(detail: str) -> str:
    return f"""
create view v_saga_event as
select saga_id, seq, at, kind, step, message_id, message_name, {detail} as detail from saga_event
"""


def _outbox(now: str, long_ago: str) -> str:
    return f"""
create view v_outbox as
select message_id, saga_id, name,
       case when state = 'claimed' and next_attempt_at < {now}
            then 'unknown' else state end as state,
       created_at, attempts, next_attempt_at,
       (state in ('returned', 'refused') or attempts >= {_STUCK_ATTEMPTS}
        or created_at < {long_ago}) as stuck
from outbox
"""


_TIMER = """
create view v_timer as
select saga_id, name, generation, due_at from timer
"""

_HELD = """
create view v_held as
select saga_id, saga_type, business_key, message_id, name, reason, received_at, expires_at from held
"""

_INBOX = """
create view v_inbox as
select consumer, source, message_id, received_at, disposition from inbox
"""

_DEAD_LETTER = """
create view v_dead_letter as
select dead_letter_id, consumer, message_id, name, reason, error, saga_id, first_seen_at, copies, status
from dead_letter
"""

_SQLITE_TIME = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'{offset})"

VIEWS = ("v_saga", "v_saga_event", "v_outbox", "v_timer", "v_held", "v_inbox", "v_dead_letter")

POSTGRESQL_VIEWS = (
    _saga(),
    _saga_event("cast(detail as json)"),
    _outbox("clock_timestamp()", f"clock_timestamp() - interval '{_STUCK_MINUTES} minutes'"),
    _TIMER,
    _HELD,
    _INBOX,
    _DEAD_LETTER,
)

SQLITE_VIEWS = (
    _saga(),
    _saga_event("detail"),
    _outbox(_SQLITE_TIME.format(offset=""), _SQLITE_TIME.format(offset=f", '-{_STUCK_MINUTES} minutes'")),
    _TIMER,
    _HELD,
    _INBOX,
    _DEAD_LETTER,
)

DOOR_SIGNATURE = "publish(text, text, text, jsonb, text)"

_DOOR = r"""
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
    wrong text;
    envelope jsonb;
begin
    if publish.name is null or publish.name !~ '^[A-Za-z][A-Za-z0-9_.-]{0,254}$' then
        raise exception 'publish: % is not a message name', coalesce(quote_literal(left(publish.name, 300)), 'null')
            using errcode = 'invalid_parameter_value',
                  hint = 'Write at most 255 letters, digits, "_", "." and "-", beginning with a letter.';
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
    if publish.body is null or octet_length(publish.body) > {max_body} then
        raise exception 'publish: the body of % has % bytes; it needs 2 to {max_body}', publish.name,
            coalesce(octet_length(publish.body), 0)
            using errcode = 'invalid_parameter_value',
                  hint = 'Publish a reference instead of the data.';
    end if;
    begin
        wrong := json_typeof(publish.body::json);
    exception when data_exception or program_limit_exceeded or statement_too_complex then
        raise exception 'publish: the body of % is not JSON: %', publish.name, sqlerrm
            using errcode = 'invalid_parameter_value', hint = 'Give one JSON object as text.';
    end;
    if wrong <> 'object' then
        raise exception 'publish: the body of % is a JSON %, not an object', publish.name, wrong
            using errcode = 'invalid_parameter_value', hint = 'Give one JSON object as text.';
    end if;
    if publish.headers is null or jsonb_typeof(publish.headers) <> 'object' then
        raise exception 'publish: the headers of % are not a JSON object', publish.name
            using errcode = 'invalid_parameter_value', hint = 'Leave them out, or give ''{"schema-version": 1}''.';
    end if;
    select h.key into wrong from jsonb_each_text(publish.headers) h where h.key <> all (allowed) limit 1;
    if found then
        raise exception 'publish: % carries the header %, which no event has', publish.name, quote_literal(wrong)
            using errcode = 'invalid_parameter_value',
                  hint = 'Known headers: ' || array_to_string(allowed, ', ') || '.';
    end if;
    select h.key into wrong from jsonb_each_text(publish.headers) h
    where coalesce(h.value, '') !~
          case h.key when 'schema-version' then '^[1-9][0-9]{0,8}$' else '^[\x20-\x7e]{1,255}$' end
    limit 1;
    if found then
        raise exception 'publish: the header % of % has an impossible value', wrong, publish.name
            using errcode = 'invalid_parameter_value',
                  hint = 'schema-version is a whole number from 1; the others are 1 to 255 printable ASCII characters.';
    end if;
    if publish.order_key !~ '^[^\x01-\x1f\x7f-\x9f]{1,255}$' then
        raise exception 'publish: the order key of % is not 1 to 255 characters free of control characters',
            publish.name
            using errcode = 'invalid_parameter_value', hint = 'Use the business key, or leave it out.';
    end if;
    if publish.order_key is not null then
        perform pg_advisory_xact_lock(hashtextextended('{namespace}/' || publish.order_key, 0));
    end if;
    envelope := jsonb_build_object('source', session_user, 'timestamp', clock_timestamp());
    for wrong in select jsonb_object_keys(publish.headers) loop
        envelope := jsonb_set(
            envelope,
            array[replace(wrong, '-', '_')],
            case wrong
                when 'schema-version' then to_jsonb((publish.headers ->> wrong)::integer)
                else to_jsonb(publish.headers ->> wrong)
            end
        );
    end loop;
    insert into outbox (
        message_id, path, name, exchange, routing_key, body, headers,
        state, maybe_sent, next_attempt_at, attempts, created_at
    ) values (
        publish.message_id, publish.order_key, publish.name, '{namespace}.events', publish.name,
        convert_to(publish.body, 'UTF8'), envelope::text,
        'new', false, clock_timestamp(), 0, clock_timestamp()
    );
    return publish.message_id;
end
$door$
"""

MAX_BODY = 1_048_576
"""Longest body that the door takes, in bytes."""


def door(namespace: str) -> str:
    """The text that makes the door of a namespace. Nobody may use it until its owner grants execute on it."""
    return _DOOR.replace("{namespace}", namespace).replace("{max_body}", str(MAX_BODY))


DOOR_CLOSED = f"revoke all on function {DOOR_SIGNATURE} from public"

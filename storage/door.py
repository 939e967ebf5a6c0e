"""The door for other services in the same PostgreSQL database: an event with a select, in their own transaction.

What the codec of every reader would refuse raises here, in the transaction of whoever sends it, instead of becoming a
dead letter. The rules are those of `messages.codec` and `messages.strict_json`, in SQL; `docs/sql-door.md` says where
the door is the stricter. Texts are complete statements, which find and make their names in the session's search path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from messages.codec import DEFAULT_LIMITS
from sagas.names import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHECK = r"""
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
                where depth <= {max_depth} and json_typeof(inside.json) in ('object', 'array')
            ), keys(id, key) as (
                select id, json_object_keys(json)
                from (select row_number() over () as id, json from part where kind = 'object') as object
            )
            select max(depth), (select key from keys group by id, key having count(*) > 1 limit 1)
            into deepest, twice from part;
        end if;
    exception
        when statement_too_complex then
            deepest := {max_depth} + 1;
        when data_exception or program_limit_exceeded then
            get stacked diagnostics problem = pg_exception_detail, place = pg_exception_context;
            raise exception 'publish: the body of % is not JSON: %', name,
                case problem when '' then sqlerrm else problem || ' (' || split_part(place, E'\n', 1) || ')' end
                using errcode = 'invalid_parameter_value',
                      hint = 'Give one JSON object as text, without \u0000 and halves of surrogate pairs.';
    end;
    if deepest > {max_depth} then
        raise exception 'publish: the body of % is nested deeper than {max_depth} levels', name
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
"""

_PUBLISH = r"""
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
    if publish.name = '{marker}' then
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
    if bytes is null or length(bytes) > {max_body} then
        raise exception 'publish: the body of % has % bytes; it needs 2 to {max_body}', publish.name,
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
"""

_CLOSED = "revoke all on function check_body(text, text), publish(text, text, text, jsonb, text) from public"


def door(namespace: str) -> tuple[str, ...]:
    """The texts that make the door of a namespace. Nobody may use it until its owner grants execute on it."""
    values = {
        "{namespace}": namespace,
        "{marker}": MARKER,
        "{max_body}": str(DEFAULT_LIMITS.max_body),
        "{max_depth}": str(DEFAULT_LIMITS.max_depth),
    }
    return (_filled(_CHECK, values), _filled(_PUBLISH, values), _CLOSED)


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text

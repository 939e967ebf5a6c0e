"""The rows of dead letters: raw and complete, one per message, with a count of its copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from messages.printable import printable
from storage.properties import packed
from storage.statements import Write

if TYPE_CHECKING:
    from uuid import UUID

    from messages.envelope import Raw
    from storage.statements import Batch

MAX_ERROR = 4_000
MAX_NAME = 255

_NEW = """
    insert into dead_letter (
        consumer, source, message_id, name, body_hash, body, properties, reason, error, saga_id,
        first_seen_at, last_seen_at, copies, status
    )
"""
_AGAIN = """
    on conflict (consumer, source, message_id, body_hash) do update set
        copies = dead_letter.copies + excluded.copies, last_seen_at = excluded.last_seen_at, status = 'open',
        reason = excluded.reason, error = excluded.error, saga_id = coalesce(excluded.saga_id, dead_letter.saga_id)
"""

KEEP = Write(
    name="dead_letter_keep",
    columns={
        "consumer": "text",
        "source": "text",
        "message_id": "text",
        "name": "text",
        "body_hash": "bytea",
        "body": "bytea",
        "properties": "text",
        "reason": "text",
        "error": "text",
        "saga_id": "uuid",
        "copies": "bigint",
    },
    postgresql=f"""
        {_NEW} select consumer, source, message_id, name, body_hash, body, properties, reason, error, saga_id,
                      clock_timestamp(), clock_timestamp(), copies, 'open' from {{rows}} {_AGAIN}
    """,
    sqlite=f"""
        {_NEW} values (:consumer, :source, :message_id, :name, :body_hash, :body, :properties, :reason, :error,
                       :saga_id, :now, :now, :copies, 'open') {_AGAIN}
    """,
)


_Key = tuple[str, str, str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Letter:
    name: str
    raw: Raw
    reason: str
    error: str
    saga_id: UUID | None
    copies: int


class Letters:
    """Dead letters gathered for one batch: copies of one message become one row."""

    def __init__(self) -> None:
        self._rows: dict[_Key, _Letter] = {}

    def add(
        self,
        *,
        consumer: str,
        source: str,
        message_id: str,
        name: str,
        raw: Raw,
        body_hash: bytes,
        reason: str,
        error: str,
        saga_id: UUID | None,
    ) -> None:
        """Have this message kept. What came from outside is made fit for a column; `raw` is kept as it was."""
        key: _Key = (consumer, printable(source, MAX_NAME), printable(message_id, MAX_NAME), body_hash)
        earlier = self._rows.get(key)
        copies = 1
        if earlier is not None:
            saga_id = saga_id or earlier.saga_id
            copies += earlier.copies
        self._rows[key] = _Letter(
            name=printable(name, MAX_NAME),
            raw=raw,
            reason=reason,
            error=printable(error, MAX_ERROR),
            saga_id=saga_id,
            copies=copies,
        )

    def save(self, batch: Batch) -> None:
        """Add the rows in the order of their key."""
        batch.add(KEEP, [_row(key, self._rows[key]) for key in sorted(self._rows)])


def _row(key: _Key, letter: _Letter) -> tuple[object, ...]:
    consumer, source, message_id, body_hash = key
    return (
        consumer,
        source,
        message_id,
        letter.name,
        body_hash,
        letter.raw.body,
        packed(letter.raw),
        letter.reason,
        letter.error,
        letter.saga_id,
        letter.copies,
    )

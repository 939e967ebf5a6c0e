"""The database: engine and sessions, tables and views, rows of instances, timers, dead letters, and the read side.

Knows the core (`sagas`, `messages`) and nothing of brokers or use cases. What one transaction may do is the contract in
`outbox.interface`, carried out by `outbox.unit` from what lies here.
"""

from storage.database import Database, Session
from storage.engine import DEFAULT_NAMESPACE
from storage.runner_lock import runner_lock

__all__ = ["DEFAULT_NAMESPACE", "Database", "Session", "runner_lock"]

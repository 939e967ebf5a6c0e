from tests.storage.databases import counter, database, empty_sqlite, own_namespace, postgresql, sqlite, storage

__all__ = ["counter", "database", "empty_sqlite", "own_namespace", "postgresql", "sqlite", "storage"]

from tests.storage.databases import counter, empty_sqlite, own_namespace, storage

__all__ = ["counter", "empty_sqlite", "own_namespace", "storage"]

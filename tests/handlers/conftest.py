from tests.storage.databases import counter, database, empty_sqlite, own_namespace, postgresql, sqlite, storage
from tests.storage.databases import on_both_databases as pytest_generate_tests

__all__ = [
    "counter",
    "database",
    "empty_sqlite",
    "own_namespace",
    "postgresql",
    "pytest_generate_tests",
    "sqlite",
    "storage",
]

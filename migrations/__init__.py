"""The schema's versions: `up`, `down`, `check` and `sql`, for the command line and for a database that migrates itself.

Each runs in one transaction and is safe when two start at once: the second waits and finds nothing to do. A version
only adds what older processes can live with, and removes what no running process needs any more, so that old and new
processes work side by side while a deployment rolls.
"""

from migrations.migrate import HEAD, check, down, sql, up

__all__ = ["HEAD", "check", "down", "sql", "up"]

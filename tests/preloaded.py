"""What a process of a command imports sooner or later: servers that fork such processes for tests import it once.

Only the catalogs are missing, which a process imports when its settings name them.
"""

PRELOADED = (
    "aiosqlite",
    "alembic.command",
    "asyncpg",
    "pydantic.v1",
    "runtime.cli",
    "runtime.commands.config",
    "runtime.commands.dead",
    "runtime.commands.demo",
    "runtime.commands.doctor",
    "runtime.commands.held",
    "runtime.commands.migrate",
    "runtime.commands.operate",
    "runtime.commands.processes",
    "runtime.commands.publish",
    "runtime.commands.run",
    "runtime.commands.sagas",
    "runtime.http",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "transport.rabbitmq",
    "typer._adapters",
    "uvicorn",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "uvloop",
)

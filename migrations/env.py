"""What Alembic runs around the versions; `migrations.migrate` hands over the connection and its transaction."""

from __future__ import annotations

from alembic import context

from storage.tables import metadata

config = context.config
namespace = config.attributes.get("namespace", "antiphon")

if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        url="postgresql+asyncpg://",
        target_metadata=metadata,
        literal_binds=True,
        namespace=namespace,
    )
    with context.begin_transaction():
        context.execute(f'create schema if not exists "{namespace}"')
        context.execute(f'set local search_path = "{namespace}"')
        context.run_migrations()
else:
    context.configure(
        connection=config.attributes["connection"],
        target_metadata=metadata,
        transactional_ddl=False,  # the transaction is the caller's
        namespace=namespace,
    )
    context.run_migrations()

"""Column types that mean the same on both databases: on SQLite, UUIDs and times are text that people can read."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, DateTime, Integer, LargeBinary, Text, Uuid
from sqlalchemy.dialects import postgresql

SQLITE = "sqlite"

text = Text()
whole = BigInteger().with_variant(Integer(), SQLITE)  # SQLite counts up by itself only in INTEGER
flag = Boolean(create_constraint=False)
octets = LargeBinary()
moment = DateTime(timezone=True).with_variant(Text(), SQLITE)
identity = Uuid().with_variant(Text(), SQLITE)
bytewise = postgresql.TEXT(collation="C").with_variant(Text(), SQLITE)
"""Text that is compared byte by byte, whatever the locale of the database: keys, ids, names."""

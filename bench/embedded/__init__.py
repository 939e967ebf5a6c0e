"""The contenders that need no server: one process and an SQLite file each, behind the pipe of a peer."""

"""The demo: the ordering process in one process on SQLite, with orders that succeed, fail and time out.

It knows the process by the names on the wire only, as any service would.
"""

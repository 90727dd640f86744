"""Brings committed changes from the database to Kafka (facts) and to ClickHouse (names), in order.

What a change has to say waits in two tables, committed with it. One process at a time sends what
waits: the holder of a lock that ends with its process. A kill at any moment makes a message late or
sends it twice, which does no harm: the worker ignores a version that it has with the same content,
and a row of names replaces the one before it.
May be imported: `api.storage`, `streams`, `warehouse`, `schemas`. Never: HTTP, `api.rules` (except
by `names`, which asks who had which address), `api.repair`.
"""

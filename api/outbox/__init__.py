"""From the database to Kafka (facts) and to ClickHouse (names), after the fact and in order.

What is committed waits in two tables; one process at a time, the holder of a lock that ends with
it, sends what waits. A kill at any moment makes a message late or sends it again, never more:
the worker ignores a version that it has with the same content, and names replace themselves.
May be imported: `api.storage`, `streams`, `warehouse`, `schemas`. Never: HTTP, `api.rules` (except
by `names`, which asks who had which address), `api.repair`.
"""

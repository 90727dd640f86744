"""HTTP: who asks, how often, what is answered, and in which shape.

Lives here: `/teams` in Cursor's shapes, `/v1` in ours, limits, errors, idempotency. A handler
reads a request, calls one rule, shapes the answer; it decides nothing about groups itself.
May be imported: everything else in `api` but `scim` and `repair`. Never: Kafka, ClickHouse.
"""

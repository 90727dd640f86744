"""The control plane: organizations, members, groups, keys, prices, by HTTP, SCIM, CSV and hand.

Lives here: `storage` (SQL), `reading` (queries), `rules` (what may change, and what the pipeline is
told), `outbox` (SQL to Kafka and ClickHouse), `repair` (what restores the database), `web` and
`scim` (HTTP), `server` (one process of it all).
May be imported: `streams` (the parse of events, Kafka settings), `warehouse`, `schemas`.
Never: `sinks`, `cli`. Everything that changes goes through `rules`, in one SQL transaction with
its audit entries and its facts.
"""

"""ClickHouse as readers and set-up see it: connection, migrations, access, names, reports.

Lives here: the client, `migrate`, the writers of names (dimensions), the queries behind reports and
explanations. The tables and views themselves are SQL in `schemas/migrations/clickhouse`.
May import: `schemas`. Never: Kafka, the sink, the CLI, floats for amounts, or a write to what the
sink writes.
"""

"""The rules of organizations, members and groups: what may change, and what that tells whom.

Each rule is a function of a `Change`: one organization, locked, inside one SQL transaction, with
the time as an argument. A rule changes rows and records facts, audit entries and dimension
changes; all of it is committed together or not at all.
May be imported: `api.storage`, `schemas`. Never: HTTP, Kafka, ClickHouse, clocks.
"""

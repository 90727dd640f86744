"""Restores a database that is behind its topics: it learns the facts that it forgot.

Lives here: `metering facts import` (`importer`, fact by fact in `replay`, the default price book in
`default_book`), and names and addresses from ClickHouse (`recall`).
May be imported: `api.outbox.compare`, `api.rules`, `api.storage`, `streams.kafka`, `schemas`.
Never: HTTP. The publisher never imports this: it reports and halts, only a person repairs.
"""

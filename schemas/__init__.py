"""The promises: what goes over the wire and into the tables, and how a process is configured.

Lives here: topics, records, reasons, the codec, JSON Schemas with example messages, ClickHouse
migrations, settings, and the billing calendar, which all rooms must share. Imports nothing of ours.
Never here: other behaviour, I/O, clocks.
"""

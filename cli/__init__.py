"""The `metering` command: what people and process managers run.

Lives here: arguments in, one clear line out; the supervisor behind `up`; the demo; set-up checks.
Rules: a command's module is imported when the command runs, so that help answers at once; results
go to stdout, progress and complaints to stderr; an expected failure is one line and an exit code.
Never here: decisions about events, SQL of reports, Kafka or ClickHouse settings of the contracts.
"""

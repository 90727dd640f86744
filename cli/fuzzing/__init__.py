"""`metering fuzz`: whatever anybody may send, into a running pipeline; then everything is counted.

Lives here: making records (`records.py`), sending and settling (`round.py`), the account of what
became of each (`account.py`). Only what a producer could send is sent, and nothing is hurt:
`metering verify` does that. Every process must live on, and every record that the broker took
must be rated, a duplicate, a dead letter with its bytes unchanged, or forwarded; in Kafka and in
ClickHouse.
"""


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. Raises `cli.errors.Failure`."""
    from cli.fuzzing.command import app

    return int(app(args=arguments, prog_name="metering fuzz", standalone_mode=False) or 0)

"""`metering verify`: progress on stderr, one JSON line on stdout, exit 1 for any difference."""

import asyncio
import logging
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli.command_line import Commands
from cli.errors import Failure
from cli.verification.pipeline import PipelineError
from cli.verification.round import Options, Result, run_round

app = Commands("The crash proof.", no_args_is_help=False)


@app.command()
def verify(
    events: Annotated[int, typer.Option(min=1, help="Usage events.")] = 20_000,
    kills: Annotated[int, typer.Option(min=0, help="Faults of all kinds.")] = 10,
    workers: Annotated[int, typer.Option(min=1, max=8)] = 2,
    seed: Annotated[int | None, typer.Option(help="Of the workload and the faults.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the data here.")] = None,
    slow_recovery: Annotated[
        float, typer.Option(min=0, help="Seconds that each recovery takes, a rebalance inside.")
    ] = 0.0,
    request_timeout: Annotated[
        float, typer.Option(min=1, help="Faust's, with --slow-recovery; seconds.")
    ] = 90.0,
    down: Annotated[
        float, typer.Option(min=0, help="Seconds for which ClickHouse, then Kafka, is down.")
    ] = 0.0,
) -> None:
    """Run the pipeline on embedded engines, kill its parts at random, compare with a model."""
    if seed is None:
        seed = secrets.randbelow(10**6)
    options = Options(events, kills, workers, seed, slow_recovery, request_timeout, down)
    directory = keep or Path(tempfile.mkdtemp(prefix="metering-verify-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise Failure(f"{directory} is not empty: --keep needs a new directory")
    # Of a broker that is killed again and again, clients have a lot to say.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        result = asyncio.run(run_round(options, directory, _Progress()))
    except PipelineError as error:
        raise Failure(f"{error} (seed {seed}; everything is kept in {directory})") from None
    _report(result, directory, is_kept=keep is not None)


class _Progress:
    """Lines on stderr with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._started:7.1f} s  {text}\n")
        sys.stderr.flush()


def _report(result: Result, directory: Path, *, is_kept: bool) -> None:
    differences = result.verdict.differences
    for text in differences.first:
        sys.stderr.write(f"{text}\n")
    reasons = ", ".join(f"{reason} {n}" for reason, n in result.verdict.reasons.most_common())
    sys.stderr.write(
        f"usage refused: {reasons or 'none'}; "
        f"processes that ended and were started again: {result.ended_by_themselves}\n"
    )
    if differences.total:
        sys.stderr.write(f"everything is kept in {directory}\n")
    elif not is_kept:
        shutil.rmtree(directory, ignore_errors=True)
    sys.stderr.flush()
    sys.stdout.write(msgspec.json.encode(result.figures).decode() + "\n")
    sys.stdout.flush()
    if differences.total:
        raise typer.Exit(1)

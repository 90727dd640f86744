"""`metering fuzz`: progress on stderr, one JSON line on stdout, exit 1 for any difference."""

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
from cli.fuzzing.records import read_corpus
from cli.fuzzing.round import Result, run_round
from cli.verification.pipeline import PipelineError

app = Commands("Every record counted.", no_args_is_help=False)


@app.command()
def fuzz(
    records: Annotated[int, typer.Option(min=1, help="To be made and sent.")] = 20_000,
    seed: Annotated[int | None, typer.Option(help="Of what is made.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="JSON lines to be sent first.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the data here.")] = None,
) -> None:
    """Send records of all kinds into a pipeline on embedded engines, and count every one."""
    if seed is None:
        seed = secrets.randbelow(10**6)
    try:
        known = read_corpus(corpus) if corpus else []
    except (OSError, ValueError, KeyError) as error:
        raise Failure(f"{corpus} cannot be read: {error!r}") from None
    directory = keep or Path(tempfile.mkdtemp(prefix="metering-fuzz-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise Failure(f"{directory} is not empty: --keep needs a new directory")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:7.1f} s  {text}\n")
        sys.stderr.flush()

    try:
        result = asyncio.run(run_round(records, seed, known, directory, say))
    except PipelineError as error:
        raise Failure(f"{error} (seed {seed}; everything is kept in {directory})") from None
    _report(result, directory, is_kept=keep is not None)


def _report(result: Result, directory: Path, *, is_kept: bool) -> None:
    for text in result.differences.first:
        sys.stderr.write(f"{text}\n")
    reasons = ", ".join(f"{reason} {n}" for reason, n in result.reasons.most_common())
    sys.stderr.write(f"refused: {reasons or 'none'}\n")
    if result.differences.total:
        sys.stderr.write(f"everything is kept in {directory}\n")
    elif not is_kept:
        shutil.rmtree(directory, ignore_errors=True)
    sys.stderr.flush()
    sys.stdout.write(msgspec.json.encode(result.figures).decode() + "\n")
    sys.stdout.flush()
    if result.differences.total:
        raise typer.Exit(1)

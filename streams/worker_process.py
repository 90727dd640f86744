"""Runs a Faust app as a process, without Faust's command line, banner and web server."""

import asyncio
import gc
from typing import NoReturn

import faust
from faust.worker import Worker

GC_ALLOCATIONS = 50_000
"""Young collections less often: a batch allocates thousands of short-lived, acyclic objects."""


class _Worker(Worker):  # type: ignore[misc]
    """Faust's worker, leaving logging as the process has set it up."""

    def _setup_logging(self) -> None:
        """Faust's would replace the handlers."""


def run_faust(app: faust.App, loop: asyncio.AbstractEventLoop | None = None) -> NoReturn:
    """Runs until SIGTERM or SIGINT; exits the process."""
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 50)
    worker = _Worker(app, quiet=True, redirect_stdouts=False, loop=loop)
    worker.spinner = None
    worker.execute_from_commandline()
    raise SystemExit

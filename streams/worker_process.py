"""Runs a Faust app as a process, without Faust's command line, banner and web server."""

import gc

import faust
from faust.worker import Worker

GC_ALLOCATIONS = 50_000
"""Young collections less often: a batch allocates thousands of short-lived, acyclic objects."""


def run_faust(app: faust.App, *, log_level: str) -> None:
    """Runs until SIGTERM or SIGINT; exits the process."""
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 50)
    worker: Worker = app.Worker(loglevel=log_level.upper(), quiet=True, redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()

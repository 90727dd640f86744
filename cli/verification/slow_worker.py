"""A worker whose recovery takes long: `python -m cli.verification.slow_worker SECONDS TIMEOUT_S`.

Faust cancels what takes longer than its request timeout without a word; a recovery must not be
such a thing. The timeout is an argument so that a small round need not wait for 90 s.
"""

import asyncio
import sys
from functools import partial
from typing import Any

from cli.configuration import load_settings
from cli.logging_setup import set_up_logging
from streams import worker
from streams.exactly_once import lanes


def make_slow(recovery_s: float, request_timeout_s: float) -> None:
    """Every recovery of this process takes at least so long."""
    runtime: Any = lanes
    faust: Any = sys.modules["faust"]
    recover = runtime.recover

    async def recover_slowly(*arguments: Any, **options: Any) -> int:
        records: int = await recover(*arguments, **options)
        await asyncio.sleep(recovery_s)
        return records

    runtime.recover = recover_slowly
    faust.App = partial(faust.App, broker_request_timeout=request_timeout_s)


if __name__ == "__main__":
    make_slow(float(sys.argv[1]), float(sys.argv[2]))
    settings = load_settings()
    set_up_logging(settings.log_format, settings.log_level)
    worker.run(settings)

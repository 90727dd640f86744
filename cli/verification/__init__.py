"""`metering verify`: the crash proof. The real pipeline, hurt while it works, against a model.

Lives here: the workload, the faults, the comparison; and the model (`model.py` and what it
imports), an independent second opinion: simple and slow, it imports `schemas` for words and limits
only, never `streams`, and shares no code with it; where the two differ, one is wrong.
"""


def main(arguments: list[str]) -> int:
    """The command; returns its exit code. Raises `cli.errors.Failure`."""
    # The model is imported by tests that need none of this.
    from cli.verification.command import app

    return int(app(args=arguments, prog_name="metering verify", standalone_mode=False) or 0)

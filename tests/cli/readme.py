"""README's ```console blocks: commands, what they print, and running them."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```console\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00| UTC)?")
LETTER = re.compile(r"^\d+:\d+ +", re.MULTILINE)
OFFSET = re.compile(r"offset \d+")
SPACES = re.compile(r" +$", re.MULTILINE)
IDS = re.compile(r"\b(user|group|key|bill|buy)_[A-Z0-9]{26}\b")
STRIPE_IDS = re.compile(r"\b(cs_test|in)_[A-Za-z0-9]{24}\b")
PORT = re.compile(r"http://127\.0\.0\.1:\d+")
INVOICE = re.compile(r"\b[0-9A-Z]{8}-(\d{4})\b")
ASKS = re.compile(
    r"\./metering (explain|report|credits (show|history)|dead-letters list)"
    r"|curl .*\n?.*SELECT|call \"\$ADMIN\" \S+$"
)
"""What only asks, and may be asked twice."""
SCRIPT_HEAD = """\
#!/usr/bin/env bash
# README's walk in one go, with `./metering up --demo` running: each command is shown, then run.
# Made from README by its test, which runs the same commands.
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
(. "${METERING_DATA_DIR:-.metering}/up.env" &&
    curl -sS -o /dev/null "$METERING_API_URL/health/live") 2>/dev/null || {
    echo "Nothing runs here: start ./metering up --demo in another terminal first." >&2
    exit 1
}
set -v

"""
END = "=== end of output ==="
VISIBLE_S = 30.0
"""What was sent can be queried after about a second; a busy machine is given longer."""


@dataclass(frozen=True, slots=True)
class Example:
    """A command and what README says it prints, stdout and stderr together."""

    command: str
    output: str


def blocks(text: str) -> list[list[Example]]:
    """The examples of each block, in order."""
    return [_examples(block[1]) for block in BLOCK.finditer(text)]


def with_outputs(text: str, outputs: list[str]) -> str:
    """The text with other outputs, one for each example."""
    remaining = iter(outputs)

    def rewrite(block: re.Match[str]) -> str:
        lines = []
        for example in _examples(block[1]):
            first, *more = example.command.split("\n")
            lines += [f"$ {first}", *(f"> {line}" for line in more)]
            output = next(remaining)
            lines += output.splitlines() if output else []
        return "```console\n" + "\n".join(lines) + "\n```\n"

    return BLOCK.sub(rewrite, text)


def script(text: str) -> str:
    """The commands of all examples as a script that is run from the checkout."""
    commands = [example.command for block in blocks(text) for example in block]
    return SCRIPT_HEAD + "\n".join(commands) + "\n"


def normalized(output: str) -> str:
    """Without what differs from run to run: times, offsets, ids that we make."""
    for pattern, replacement in (
        (TIME, "<time>"),
        (LETTER, "<id> "),
        (OFFSET, "offset <n>"),
        (IDS, r"\1_<id>"),
        (STRIPE_IDS, r"\1_<id>"),
        (PORT, "http://127.0.0.1:<port>"),
        (INVOICE, r"<prefix>-\1"),
    ):
        output = pattern.sub(replacement, output)
    return SPACES.sub("", output).strip()


class Terminal:
    """One shell in an empty directory: what a command sets, the next one finds."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        launcher = directory / "metering"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli "$@"\n')
        launcher.chmod(0o755)
        self._shell = subprocess.Popen(
            ["/bin/bash"],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def close(self) -> None:
        self._shell.kill()
        self._shell.communicate()

    def run(self, example: Example) -> str:
        """What it prints; asked again for a while where it only asks."""
        deadline = time.monotonic() + VISIBLE_S
        while True:
            printed = self._run(example.command)
            is_right = normalized(printed) == normalized(example.output)
            if is_right or not ASKS.match(example.command) or time.monotonic() > deadline:
                return printed
            time.sleep(0.5)

    def _run(self, command: str) -> str:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        # Nothing but the command itself may read on from here.
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\necho; echo {END}\n")
        self._shell.stdin.flush()
        printed = ""
        for line in self._shell.stdout:
            if line == f"{END}\n":
                return printed.removesuffix("\n")
            printed += line
        raise AssertionError(f"the shell ended: {command}\n{printed}")


def _examples(block: str) -> list[Example]:
    examples: list[Example] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            examples.append(Example(line[2:], ""))
        elif line.startswith("> "):
            last = examples.pop()
            examples.append(Example(f"{last.command}\n{line[2:]}", last.output))
        else:
            last = examples.pop()
            examples.append(Example(last.command, f"{last.output}{line}\n"))
    return examples

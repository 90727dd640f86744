"""README's ```console blocks: commands, what they print, and running them."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```console\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00| UTC)?")
LETTER = re.compile(r"^\d+:\d+ +", re.MULTILINE)
OFFSET = re.compile(r"offset \d+")
SPACES = re.compile(r" +$", re.MULTILINE)
VISIBLE_S = 30.0
"""What was sent can be queried after about a second; a busy machine is given longer."""


@dataclass(frozen=True, slots=True)
class Example:
    """A command and what README says it prints, stdout and stderr together."""

    command: str
    output: str


def blocks(text: str) -> list[list[Example]]:
    """The examples of each block, in order."""
    return [_examples(found[1]) for found in BLOCK.finditer(text)]


def with_outputs(text: str, outputs: list[str]) -> str:
    """The text with other outputs, one for each example."""
    remaining = iter(outputs)

    def rewrite(found: re.Match[str]) -> str:
        lines = []
        for example in _examples(found[1]):
            first, *more = example.command.split("\n")
            lines += [f"$ {first}", *(f"> {line}" for line in more)]
            output = next(remaining)
            lines += output.splitlines() if output else []
        return "```console\n" + "\n".join(lines) + "\n```\n"

    return BLOCK.sub(rewrite, text)


def normalised(output: str) -> str:
    """Without what differs from run to run: times, offsets."""
    for pattern, replacement in ((TIME, "<time>"), (LETTER, "<id> "), (OFFSET, "offset <n>")):
        output = pattern.sub(replacement, output)
    return SPACES.sub("", output).strip()


class Terminal:
    """Commands one after another, in an empty directory, with variables kept between them."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = dict(environment)
        launcher = directory / "metering"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli "$@"\n')
        launcher.chmod(0o755)
        self._variables = ""

    def run(self, example: Example) -> str:
        """What it prints; asked again for a while where it only asks."""
        if re.match(r"(EVENT=|\. )", example.command):
            self._variables += example.command + "\n"
            return ""
        if example.command.startswith("curl ") and shutil.which("curl") is None:
            return example.output  # any client would do; this machine has none
        deadline = time.monotonic() + VISIBLE_S
        only_asks = re.match(
            r"(\./metering (explain|report|dead-letters list)|curl)", example.command
        )
        while True:
            printed = self._run(example.command)
            is_right = normalised(printed) == normalised(example.output)
            if is_right or not only_asks or time.monotonic() > deadline:
                return printed
            time.sleep(0.5)

    def _run(self, command: str) -> str:
        return subprocess.run(
            ["/bin/bash", "-c", self._variables + command],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        ).stdout


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

"""House rules as tests: what a reviewer would otherwise have to say again and again."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from schemas.topics import all_topics

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
LINE_CHARACTERS_MAX = 100
LOCKS = (".lock",)
"""Made by tools, not by hand."""
PACKAGES = ("schemas", "deploy", "warehouse", "streams", "sinks", "api", "cli", "bench")

# Written in pieces, so that this file does not break its own rules.
LEFTOVERS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
MACHINE_PATH = re.compile(r"(?<![\w./$}-])/(?:ro" + r"ot|ho" + r"me|wo" + r"rk|mnt)/\w")
REGISTRY = re.compile(
    r"https?://[^\s\"'<>]*(?:artif" + r"actory|nex" + r"us|pypi\.|/simple\b|proxy\.golang)"
)
MERGE = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)


@cache
def tracked() -> list[Path]:
    """Files that git knows or would add; those deleted in the work tree aside."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return [ROOT / name for name in sorted(set(listed.split("\0"))) if (ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of every text file that people write."""
    for path in tracked():
        if path.suffix in LOCKS:
            continue
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def python_files() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py"]


def matches(pattern: re.Pattern[str]) -> list[str]:
    """`file:line: text` of every match."""
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in texts()
        for match in pattern.finditer(text)
    ]


def test_files_are_short() -> None:
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in python_files()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    }
    assert too_long == {}


def test_functions_are_short() -> None:
    too_long = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    too_long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines}")
    assert too_long == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_every_package_has_a_header() -> None:
    packages = {
        path.parent for path in python_files() if path.relative_to(ROOT).parts[0] in PACKAGES
    }
    silent = [
        str(package.relative_to(ROOT))
        for package in sorted(packages)
        if not (package / "README.md").exists()
        and not ((package / "__init__.py").exists() and (package / "__init__.py").read_text())
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("leftovers", LEFTOVERS),
        ("a path of one machine", MACHINE_PATH),
        ("a package registry", REGISTRY),
        ("a merge conflict", MERGE),
    ],
)
def test_no_file_holds(what: str, pattern: re.Pattern[str]) -> None:
    assert matches(pattern) == [], what


def test_amounts_are_no_floats() -> None:
    """What decides and what is promised about money never mentions floats, reprs aside."""
    offenders = []
    for path in python_files():
        parts = path.relative_to(ROOT).parts
        if parts[0] != "schemas" and parts[:2] != ("streams", "decisions"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_division = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
            is_literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
            if is_division or (is_literal and path.name != "settings.py"):
                offenders.append(f"{path.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert offenders == []


def test_every_example_belongs_to_a_topic() -> None:
    """One that lies elsewhere is run by no test, and promises what nobody keeps."""
    folder = ROOT / "schemas" / "examples"
    examples = [path for path in tracked() if folder in path.parents]
    topics = {path.relative_to(folder).parts[0] for path in examples}
    assert topics <= set(all_topics())


def test_every_script_can_be_run() -> None:
    scripts = [path for path in tracked() if path.read_bytes()[:2] == b"#!"]
    assert ROOT / "metering" in scripts
    assert ROOT / ".ci" / "run" in scripts
    assert [path.name for path in scripts if not path.stat().st_mode & 0o111] == []

"""The allow-lists below `access/`: words between spaces and line ends; lines with `#` are prose."""

from importlib import resources


def allowed(name: str) -> frozenset[str]:
    """The words of `access/NAME.txt`, in lower case."""
    text = (resources.files(__package__) / "access" / f"{name}.txt").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(word.lower() for line in lines for word in line.split())

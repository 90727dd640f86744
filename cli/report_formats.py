"""In which formats reports are printed, and what they have in common."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format")]


def json_text(document: dict[str, Any]) -> str:
    """A JSON document for people and programs, ending with a newline."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

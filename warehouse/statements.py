"""SQL text: cut into statements, and literals written safely. Pure."""

import re

_TOKEN = re.compile(
    r"""
    (?P<skipped> --[^\n]* | /\*[\s\S]*?\*/ )
  | (?P<literal> '(?:[^'\\]|\\[\s\S]|'')*' | `[^`]*` | "(?:[^"\\]|\\[\s\S])*" )
  | (?P<end>     ; )
  | (?P<other>   [^;'"`/-]+ | [\s\S] )
    """,
    re.VERBOSE,
)


def split_statements(sql: str) -> list[str]:
    """The statements of a file, without comments; a semicolon in a literal does not end one."""
    statements, parts = [], list[str]()
    for token in _TOKEN.finditer(sql):
        match token.lastgroup:
            case "end":
                statements.append("".join(parts).strip())
                parts = []
            case "skipped":
                parts.append(" ")
            case _:
                parts.append(token[0])
    statements.append("".join(parts).strip())
    return [statement for statement in statements if statement]


def quoted_literal(text: str) -> str:
    """A string literal, for statements that take no parameters (users, policies)."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def quoted_name(name: str) -> str:
    """An identifier."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"

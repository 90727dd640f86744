"""The third layer of read-only: what a read-only user may write in a statement.

The engine in process has no users and no grants. `SET readonly = 1` (layer one) and the engine's
own classification as READ_ONLY (layer two) both let a SELECT read files and start programs through
functions. Here a statement is read token by token, as the engine's lexer would read it, and
refused when it names such a function, or contains anything this lexer does not know for certain:
a doubt about where a literal ends would be a way around the check.

Pure. What is let through is a list of known table functions, so one that a newer engine adds is
refused until somebody has looked at it.
"""

import re
from collections.abc import Collection, Iterator

from deploy.embedded.clickhouse.errors import readonly_refusal

# Table functions that compute from their arguments alone.
HARMLESS_TABLE_FUNCTIONS = frozenset(
    {
        "format",
        "generate_series",
        "generateseries",
        "null",
        "numbers",
        "numbers_mt",
        "values",
        "view",
        "zeros",
        "zeros_mt",
    }
)
# Ordinary functions that leave the database; table functions are asked of the engine.
OUTSIDE_FUNCTIONS = frozenset(
    {
        "catboostevaluate",
        "executable",
        "file",
        "modelevaluate",
        "python",
        "remote",
        "url",
    }
)
# INTO OUTFILE writes; `APPLY file` calls a function without a parenthesis behind its name.
UNFIT_WORDS = frozenset({"apply", "outfile"})

TOKEN_PATTERN = re.compile(
    r"""
    (?P<space>     [ \t\r\n\f\v]+ )
  | (?P<comment>   --[^\n]* | /\*(?:(?!/\*|\*/)[\s\S])*\*/ )
  | (?P<literal>   '(?:[^'\\]|\\[\s\S]|'')*' )
  | (?P<quoted>    `[^`\\]*` | "[^"\\]*" )
  | (?P<word>      [A-Za-z_][A-Za-z_0-9]*+ (?!') )       # x'…' has other escapes than '…'
  | (?P<number>    [0-9][A-Za-z_0-9.]*+ (?!') )
  | (?P<sign>      [-+*%=<>!,.;:?|&^~@()\[\]{}] | /(?!\*) )  # no comment left open or nested
    """,
    re.VERBOSE,
)


def check_readonly(sql: str, table_functions: Collection[str]) -> None:
    """Refuse the statement unless it surely reads nothing but tables.

    `table_functions` are all that the engine has, in lower case.
    """
    if "\0" in sql:
        raise readonly_refusal("A NUL character is not for read-only users.")
    before = ""
    for word in _tokens(sql):
        if word == "(" and _is_outside(before, table_functions):
            raise readonly_refusal(f"The function {before} is not for read-only users.")
        if word == "(" and before == "}":
            raise readonly_refusal("A parameter cannot name a function for read-only users.")
        if word in UNFIT_WORDS:
            raise readonly_refusal(f"{word.upper()} is not for read-only users.")
        before = word


def _is_outside(name: str, table_functions: Collection[str]) -> bool:
    if name in OUTSIDE_FUNCTIONS:
        return True
    return name in table_functions and name not in HARMLESS_TABLE_FUNCTIONS


def _tokens(sql: str) -> Iterator[str]:
    """Names in lower case and without their quotes; neither space, comments nor literals."""
    position = 0
    while position < len(sql):
        found = TOKEN_PATTERN.match(sql, position)
        if found is None:
            near = sql[position : position + 20]
            raise readonly_refusal(f"Not understood, so not for read-only users: {near!r}.")
        position = found.end()
        match found.lastgroup:
            case "space" | "comment":
                continue
            case "literal":
                # It must not pass for a name, nor stand between a name and its parenthesis.
                yield "'"
            case "quoted":
                yield found[0][1:-1].strip().lower()
            case _:
                yield found[0].lower()

"""What the front must know about a statement before the engine sees it.

Pure. An INSERT with data is split into its head and its data, because the data goes to the engine
beside the statement, binary-safe; anything else goes to the engine as text.
"""

import re
from dataclasses import dataclass

from deploy.embedded.clickhouse.errors import refusal

# INSERT heads are looked for in the first bytes only: the rest of the body is data.
HEAD_BYTES_MAX = 64 * 1024

INSERT_PATTERN = re.compile(
    rb"""\s*INSERT\s+INTO\s+(?:TABLE\s+)?
    (?P<target>(?:`[^`]*`|[\w.])+\s*          # the table, with its database
      (?:\((?:`[^`]*`|[^`()])*\))?\s*         # its columns
      (?:SETTINGS\s(?:'(?:[^'\\]|\\.)*'|[^'])*?)?)\s*
    FORMAT\s+(?P<format>(?!VALUES\b)\w+)[ \t\r]*(?:;[ \t\r]*)?(?:\n|$)""",
    re.IGNORECASE | re.VERBOSE,
)
INSERT_AS_TEXT_PATTERN = re.compile(r"\b(?:VALUES|SELECT|WITH|INFILE)\b", re.IGNORECASE)
FORMAT_PATTERN = re.compile(
    r"\bFORMAT\s+(?P<format>\w+)\s*(?:SETTINGS\s[^']*)?;?\s*$", re.IGNORECASE
)
SELECT_PATTERN = re.compile(r"\s*(?:SELECT|WITH)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Insert:
    """`INSERT INTO target FORMAT format`, and the data in that format."""

    target: str
    format: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """Any other statement; `format` is the one the statement itself asks for, if any."""

    sql: str
    format: str | None

    @property
    def is_select(self) -> bool:
        return SELECT_PATTERN.match(self.sql) is not None

    @property
    def sql_without_format(self) -> str:
        match = FORMAT_PATTERN.search(self.sql)
        return self.sql if match is None else self.sql[: match.start()]


def read_statement(parameter: str, body: bytes) -> Insert | Query:
    """As ClickHouse does, the statement is the `query` parameter followed by the body."""
    head = parameter.encode()
    insert = INSERT_PATTERN.match(head or body[:HEAD_BYTES_MAX])
    if insert is not None:
        rest = head[insert.end() :] + body if head else body[insert.end() :]
        return Insert(insert["target"].decode(), insert["format"].decode(), rest)
    text = head + b"\n" + body if head and body else head or body
    try:
        sql = text.decode().strip()
    except UnicodeDecodeError:
        # Binary data must never reach the engine's lexer.
        raise refusal(48, "This form of INSERT is not supported by the embedded engine.") from None
    if not sql:
        raise refusal(62, "Empty query.")
    start = sql[:HEAD_BYTES_MAX]
    if re.match(r"INSERT\b", start, re.IGNORECASE) and not INSERT_AS_TEXT_PATTERN.search(start):
        raise refusal(48, "This form of INSERT is not supported by the embedded engine.")
    return read_query(sql)


def read_query(sql: str) -> Query:
    """A statement that is no INSERT with data beside it."""
    match = FORMAT_PATTERN.search(sql)
    return Query(sql, None if match is None else match["format"])

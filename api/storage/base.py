"""The declarative base, and the column types that behave alike on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    Integer,
    MetaData,
    String,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import TypeDecorator

ID: Final = String(256)
NAME_LIMIT_CHARACTERS: Final = 255
NAME: Final = String(NAME_LIMIT_CHARACTERS)
FOLDED: Final = String(3 * NAME_LIMIT_CHARACTERS)
"""Case-folding may lengthen a text up to threefold."""

SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up only columns of exactly the type INTEGER."""

JsonObject = dict[str, Any]

_SETTINGS_MARKS: Final = (b'"organization_created"'.hex(), b'"organization_settings"'.hex())


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC with microseconds; SQLite itself would forget the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Every constraint has a name, so that a migration can find it on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
    }


class rfc3339(FunctionElement[str]):
    """A time as answers show it (UTC, milliseconds cut off, `Z`), written out by the database.

    For lists of thousands of rows, where making Python's times and texts of them is most of the
    work; equals `api.web.shapes.common.iso` of the value.
    """

    type = String()
    name = "rfc3339"
    inherit_cache = True


@compiles(rfc3339, "sqlite")
def _rfc3339_of_text(element: rfc3339, compiler: SQLCompiler, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"replace(substr({moment}, 1, 23), ' ', 'T') || 'Z'"


@compiles(rfc3339, "postgresql")
def _rfc3339_of_timestamp(element: rfc3339, compiler: SQLCompiler, **options: Any) -> str:
    moment = compiler.process(element.clauses, **options)
    return f"""to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""


class tells_settings(FunctionElement[bool]):
    """Whether a fact's bytes may be those of `organization_created` or `organization_settings`:
    exactly as the index `ix_outbox_settings` has it, so that it is used."""

    type = Boolean()
    name = "tells_settings"
    inherit_cache = True


@compiles(tells_settings, "sqlite")
def _tells_settings_sqlite(element: tells_settings, compiler: SQLCompiler, **options: Any) -> str:
    return settings_condition("sqlite", compiler.process(element.clauses, **options))


@compiles(tells_settings, "postgresql")
def _tells_settings_postgresql(
    element: tells_settings, compiler: SQLCompiler, **options: Any
) -> str:
    return settings_condition("postgresql", compiler.process(element.clauses, **options))


def settings_condition(dialect: str, payload: str) -> str:
    """The condition `tells_settings` in the words of a database."""
    if dialect == "sqlite":
        return " + ".join(f"instr({payload}, x'{mark}')" for mark in _SETTINGS_MARKS) + " > 0"
    return (
        " + ".join(f"position(decode('{mark}', 'hex') in {payload})" for mark in _SETTINGS_MARKS)
        + " > 0"
    )

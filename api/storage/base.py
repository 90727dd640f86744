"""The declarative base, and the column types that behave alike on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, MetaData, String
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

ID: Final = String(256)
NAME_LIMIT_CHARACTERS: Final = 255
NAME: Final = String(NAME_LIMIT_CHARACTERS)
FOLDED: Final = String(3 * NAME_LIMIT_CHARACTERS)
"""Case-folding may lengthen a text up to threefold."""

SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up only columns of exactly the type INTEGER."""

JsonObject = dict[str, Any]


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

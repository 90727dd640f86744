"""What a Python program of finance does through SQLAlchemy, with the dialect that the URL names."""

import sys

import sqlalchemy as sa


def check(url: str) -> str:
    """One line of what was found, the same for both dialects."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT id, a, b, m, at, toDecimal128(1.5, 6) FROM t WHERE id < :most"),
            {"most": 3},
        ).fetchall()
        empty = connection.execute(sa.text("SELECT id FROM t WHERE id < 0")).fetchall()
        inspector = sa.inspect(engine)
        columns = [column["name"] for column in inspector.get_columns("t", "metering")]
        table = sa.Table("t", sa.MetaData(), autoload_with=engine, schema="metering")
        counted = connection.execute(
            sa.select(sa.func.count(), sa.func.sum(table.c.id)).where(
                table.c.id > 1, table.c.a.in_(["1", "2", "it's"])
            )
        ).fetchall()
        refused = False
        try:
            connection.execute(sa.text("DROP TABLE t"))
        except Exception as error:  # noqa: BLE001 - one dialect raises what SQLAlchemy does not know
            refused = "164" in str(error)
    engine.dispose()
    known = [
        "metering" in inspector.get_schema_names(),
        "t" in inspector.get_table_names("metering"),
        inspector.has_table("t", "metering"),
        inspector.get_view_names("metering"),
    ]
    results = [len(rows), len(empty), ",".join(columns), *known, tuple(counted[0]), refused]
    return " ".join(map(str, results))


if __name__ == "__main__":
    print(check(sys.argv[1]))

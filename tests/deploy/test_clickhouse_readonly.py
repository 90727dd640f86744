"""The lexer of the read-only layer: what it lets through, and what it must not be talked into."""

import pytest

from deploy.embedded.clickhouse.errors import ClickHouseError
from deploy.embedded.clickhouse.readonly import check_readonly

TABLE_FUNCTIONS = {"file", "url", "numbers", "s3", "merge", "format", "eval"}

FINE = [
    "SELECT 1",
    "SELECT sum(cost_micro) FROM spend WHERE organization_id = 'org_7' AND period >= '2026-11-01'",
    "SELECT file, url FROM pages -- file('/etc/passwd')",
    "SELECT 'file(1)', \"a b\", `c d` /* file('x') */ FROM t",
    "SELECT * FROM numbers(10) WHERE number IN (1, 2) FORMAT TSV",
    "SELECT format('{}', name), toDecimal128(x, 6) / 1000000, -x::Int64, a[1], t.1 FROM t",
    "SELECT 'it''s', 'a\\'b', '\u2019', {org:String}, {'k': 1}['k'], x -> x % 2, 1e-3, 0x1F",
    "SELECT count() FROM t WHERE name = 'größer' SETTINGS max_threads = 1",
    "DESCRIBE TABLE spend",
    "SHOW TABLES",
]

ATTACKS = [
    "SELECT * FROM file('/etc/passwd')",
    "SELECT * FROM FILE ('/etc/passwd')",
    "SELECT file/**/('/etc/passwd')",
    "SELECT file -- \n ('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT \"file\"('/etc/passwd')",
    "SELECT ` file `('/etc/passwd')",
    r"SELECT `\x66ile`('/etc/passwd')",
    r'SELECT "fil\x65"(\'/etc/passwd\')',
    "SELECT $$'$$, file('/etc/passwd')",
    "SELECT $a$'$a$, file('/etc/passwd'), $a$'$a$",
    "SELECT 1 # '\n, file('/etc/passwd') --'",
    "SELECT 1 #! '\n, file('/etc/passwd') --'",
    "SELECT 1 AS `'`, file('/etc/passwd') AS `''`",
    "SELECT 1 AS \"'\", file('/etc/passwd') AS \"''\"",
    "SELECT /* /* ' */ file('/etc/passwd') /* ' */",
    "SELECT 1 /* ' */, file('/etc/passwd') /* ' */",
    "SELECT 1 /* '",
    "SELECT x'\\', file('/etc/passwd'), '",
    "SELECT \u2018'\u2019, file('/etc/passwd'), \u2018'\u2019",
    "SELECT '\\\\', file('/etc/passwd'), ''",
    "SELECT 'a' 'b''', file('/etc/passwd')",
    "SELECT * APPLY(file) FROM (SELECT '/etc/passwd')",
    "SELECT * APPLY file FROM (SELECT '/etc/passwd')",
    "SELECT {f:Identifier}('/etc/passwd')",
    "SELECT 1 INTO OUTFILE '/tmp/x'",
    "SELECT 1 INTO /**/ OUTFILE '/tmp/x'",
    "SELECT * FROM s3('http://example.invalid/x')",
    "SELECT * FROM merge('.*', '.*')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM executable('id', 'TSV', 'x String')",
    "SELECT * FROM python(x)",
    "SELECT 'unclosed, file('/etc/passwd')",
    "SELECT 1\0, 2",
    "SELECT\u00a0file('/etc/passwd')",
]


@pytest.mark.parametrize("sql", FINE)
def test_reading_is_let_through(sql: str) -> None:
    check_readonly(sql, TABLE_FUNCTIONS)


@pytest.mark.parametrize("sql", ATTACKS)
def test_an_attack_is_refused(sql: str) -> None:
    with pytest.raises(ClickHouseError) as refused:
        check_readonly(sql, TABLE_FUNCTIONS)
    assert refused.value.code == 164

"""A reader's settings on a server, tried on the engine, which takes them from a users' file."""

import json
import subprocess
import sys

import pytest

from warehouse.access import READER_CONSTANTS, READER_LIMITS, READER_SETTINGS

# In a process of its own: an engine has one users' file for as long as its process lives.
RUN = """
import json, sys, chdb
path = sys.argv[1] + "?config-file=" + sys.argv[2]
root = chdb.connect(path)
answers = {}
for sql in json.loads(sys.argv[3]):
    connection = chdb.connect(path)
    try:
        answers[sql] = bytes(connection.query(sql, "TSV").bytes()).decode()
    except Exception as error:
        answers[sql] = str(error)
    connection.close()
print(json.dumps(answers))
"""
TAKEN = [
    "SELECT 1 SETTINGS max_execution_time = 10",
    "SELECT 1 SETTINGS max_execution_time = 60",
    "SELECT 1 SETTINGS max_threads = 1, max_block_size = 1000",
    "SELECT 1 SETTINGS date_time_input_format = 'best_effort', join_use_nulls = 1",
    "SELECT 1 SETTINGS allow_ddl = 0",
]
REFUSED = {
    "SELECT 1 SETTINGS max_execution_time = 0": 452,
    "SELECT 1 SETTINGS max_execution_time = 61": 452,
    "SELECT 1 SETTINGS max_memory_usage = 0": 452,
    "SELECT 1 SETTINGS max_memory_usage = 4000000001": 452,
    "SELECT 1 SETTINGS max_concurrent_queries_for_user = 0": 452,
    "SELECT 1 SETTINGS allow_introspection_functions = 1": 452,
    "SELECT 1 SETTINGS readonly = 0": 164,
    "SET readonly = 0": 164,
    "CREATE DATABASE other": 164,
}
USERS = """
<clickhouse>
    <profiles><default><readonly>2</readonly>{values}<constraints>{bounds}</constraints></default>
    </profiles>
    <quotas><default/></quotas>
    <users><default>
        <no_password/><networks><ip>::/0</ip></networks>
        <profile>default</profile><quota>default</quota>
    </default></users>
</clickhouse>
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With the same settings as READER_SETTINGS, in the other spelling that ClickHouse has."""
    directory = tmp_path_factory.mktemp("profile")
    values = {**READER_LIMITS, **READER_CONSTANTS}
    bounds = [
        *(
            f"<{name}><min>1</min><max>{most}</max></{name}>"
            for name, most in READER_LIMITS.items()
        ),
        *(f"<{name}><const/></{name}>" for name in READER_CONSTANTS),
    ]
    users = directory / "users.xml"
    users.write_text(
        USERS.format(
            values="".join(f"<{name}>{value}</{name}>" for name, value in values.items()),
            bounds="".join(bounds),
        )
    )
    config = directory / "config.xml"
    config.write_text(f"<clickhouse><users_config>{users}</users_config></clickhouse>")
    run = subprocess.run(
        [
            *(sys.executable, "-c", RUN, str(directory / "store"), str(config)),
            json.dumps([*TAKEN, *REFUSED]),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    answered: dict[str, str] = json.loads(run.stdout)
    return answered


def test_the_statement_for_a_server_says_the_same() -> None:
    for name, most in READER_LIMITS.items():
        assert f"{name} = {most} MIN 1 MAX {most}" in READER_SETTINGS
    for name, value in READER_CONSTANTS.items():
        assert f"{name} = {value} CONST" in READER_SETTINGS


@pytest.mark.parametrize("sql", TAKEN)
def test_what_clients_send_is_taken(answers: dict[str, str], sql: str) -> None:
    assert answers[sql] == "1\n"


@pytest.mark.parametrize(("sql", "code"), REFUSED.items())
def test_what_would_lift_a_limit_or_write_is_refused(
    answers: dict[str, str], sql: str, code: int
) -> None:
    assert answers[sql].startswith(f"Code: {code}.")

"""Who may read: the finance user, and readers who see one organization only.

On a server these are users, grants and row policies. The embedded engine stores no users: there the
HTTP front knows a read-only user (with the same limits in spirit), and nothing is done here.

Views run with the rights of whoever asks, so grants and row policies lie on the stored tables.
"""

from typing import Any, Final

from schemas.settings import Settings
from warehouse.statements import quoted_literal, quoted_name

READER_LIMITS: Final = {
    "max_execution_time": 60,
    "max_memory_usage": 4_000_000_000,
}
"""What one statement of a reader may take, in seconds and bytes; it may ask for less."""

READER_CONSTANTS: Final = {
    "max_concurrent_queries_for_user": 8,
    "max_memory_usage_for_user": 8_000_000_000,
    "max_temporary_data_on_disk_size_for_user": 20_000_000_000,
    "allow_ddl": 0,
    "allow_introspection_functions": 0,
}
"""What all statements of a reader may take together, and what none may do."""

READER_SETTINGS: Final = ", ".join(
    [
        # 2, not 1: clients send settings of their own with every statement, and 1 refuses those.
        # `readonly = 2` refuses writing just as 1 does, and these constraints bound the settings.
        "readonly = 2",
        # 0 would mean without a limit.
        *(f"{name} = {most} MIN 1 MAX {most}" for name, most in READER_LIMITS.items()),
        *(f"{name} = {value} CONST" for name, value in READER_CONSTANTS.items()),
    ]
)

ORGANIZATION_TABLES: Final = (
    "usage_rated_rows",
    "ledger_rows",
    "facts_applied_rows",
    "dead_letter_rows",
    "organization_rows",
    "billing_group_rows",
    "member_rows",
    "website_rows",
    "billing_cycle_rows",
)
"""The stored tables with an `organization_id`: what a row policy restricts."""

ORGANIZATION_READERS: Final = "metering_organization_readers"


def grant_access(client: Any, settings: Settings) -> str:
    """Make or refresh the finance user where the engine can; says in a sentence what was done."""
    if not can_store_users(client):
        return "no users made: this engine stores none, its HTTP front has the read-only user"
    if not settings.clickhouse_finance_password.get_secret_value():
        return "no users made: METERING_CLICKHOUSE_FINANCE_PASSWORD is not set"
    for statement in finance_statements(settings):
        client.command(statement)
    return f"user {settings.clickhouse_finance_user!r} may read every organization"


def grant_organization_reader(
    client: Any, settings: Settings, organization_id: str, user: str, password: str
) -> None:
    """A read-only user who sees the rows of one organization and no other. Server only."""
    for statement in organization_reader_statements(settings, organization_id, user, password):
        client.command(statement)


def can_store_users(client: Any) -> bool:
    """Whether the engine keeps users made by SQL; the embedded one has only its built-in list."""
    directories = client.query(
        "SELECT count() FROM system.user_directories WHERE type NOT IN ('users_xml', 'users.xml')"
    )
    return bool(directories.result_rows[0][0])


def finance_statements(settings: Settings) -> list[str]:
    """Reads everything in our database, writes nothing, anywhere. Idempotent, in this order."""
    database = quoted_name(settings.clickhouse_database)
    password = settings.clickhouse_finance_password.get_secret_value()
    user = quoted_name(settings.clickhouse_finance_user)
    everyone_else = [
        # With a policy on a table, who has none sees no row: this one keeps all others seeing.
        f"CREATE ROW POLICY IF NOT EXISTS metering_everyone_else ON {database}.{table} "
        f"USING 1 TO ALL EXCEPT {ORGANIZATION_READERS}"
        for table in ORGANIZATION_TABLES
    ]
    return [
        *_user_statements(user, password),
        f"GRANT SELECT ON {database}.* TO {user}",
        f"CREATE ROLE IF NOT EXISTS {ORGANIZATION_READERS}",
        f"GRANT SELECT ON {database}.* TO {ORGANIZATION_READERS}",
        f"REVOKE SELECT ON {database}.sink_rejects FROM {ORGANIZATION_READERS}",  # noqa: S608 - names are quoted
        *everyone_else,
    ]


def organization_reader_statements(
    settings: Settings, organization_id: str, user: str, password: str
) -> list[str]:
    """After `finance_statements`. Idempotent; repeated for a user, it changes the organization."""
    database = quoted_name(settings.clickhouse_database)
    name = quoted_name(user)
    policy = quoted_name(f"metering_reader_{user}")
    condition = f"organization_id = {quoted_literal(organization_id)}"
    return [
        *_user_statements(name, password),
        *(
            f"CREATE ROW POLICY OR REPLACE {policy} ON {database}.{table} "
            f"USING {condition} TO {name}"
            for table in ORGANIZATION_TABLES
        ),
        # This comes last: the role lifts the policy for everyone else, so the narrow policy must
        # exist before it.
        f"GRANT {ORGANIZATION_READERS} TO {name}",
    ]


def _user_statements(user: str, password: str) -> list[str]:
    identified = f"IDENTIFIED WITH sha256_password BY {quoted_literal(password)}"
    return [
        f"CREATE USER IF NOT EXISTS {user} {identified}",
        f"ALTER USER {user} {identified} SETTINGS {READER_SETTINGS}",
    ]

"""What `up` tells people to type in another terminal. Every line works when it is pasted."""

from pathlib import Path

from cli.configuration import ADMIN_KEY, OPERATOR_KEY, UP_FILE
from cli.up.demo_state import BUYING_GROUP
from schemas.settings import DEFAULT_DATA_DIR

PURCHASE = '{"package_id": "starter", "kind": "one_time", "quantity": 2}'
SPEND = "SELECT group_name, sum(cost_micro) FROM spend GROUP BY group_name"


def directions(
    data_dir: Path,
    database: str,
    organization_id: str,
    report: str,
    *,
    has_keys: bool,
    has_stripe: bool,
) -> list[str]:
    """For the admin of the demo's organization, or where there is no demo for the operator."""
    is_default = data_dir == DEFAULT_DATA_DIR
    lines = ["", "  In another terminal (./metering finds all this by itself):"]
    if not is_default:
        lines.append(f"    export METERING_DATA_DIR={data_dir}")
    lines += [
        "    ./metering doctor",
        f"    {report if organization_id else './metering emit events.jsonl'}",
        "  by HTTP, with addresses and keys from this file, and as finance with any SQL client:",
        f"    . {data_dir / UP_FILE}",
    ]
    if has_keys:
        lines += _admin(organization_id) if organization_id else _operator()
    if has_keys and has_stripe and organization_id:
        lines += _buyer(organization_id)
    lines += [
        '    curl -sS -u "$METERING_CLICKHOUSE_FINANCE_USER:$METERING_CLICKHOUSE_FINANCE_PASSWORD" '
        "\\",
        f'      "$METERING_CLICKHOUSE_URL/?database={database}" --data "{SPEND}"',
        "",
        "  Ctrl-C stops everything; the next `metering up` continues with the data.",
    ]
    return lines


def _admin(organization_id: str) -> list[str]:
    admin = _curl(ADMIN_KEY)
    return [
        f'    {admin}/teams/groups"',
        f'    {admin}/teams/groups" \\',
        "      -H 'Content-Type: application/json' -d '{\"name\": \"Design\"}'",
        f'    {admin}/v1/organizations/{organization_id}/groups"',
    ]


def _buyer(organization_id: str) -> list[str]:
    pool = f"/v1/organizations/{organization_id}/groups/{BUYING_GROUP}"
    return [
        "    # Buy credits: the address is a checkout page, for a browser or paid like this.",
        f'    CHECKOUT=$({_curl(ADMIN_KEY)}{pool}/purchases" \\',
        f"      -H 'Content-Type: application/json' -d '{PURCHASE}' \\",
        """      | sed 's/.*"checkout_url":"\\([^"]*\\)".*/\\1/')""",
        '    echo "$CHECKOUT"; curl -sS -L -o /dev/null -d action=pay "$CHECKOUT"; sleep 3',
        f'    {_curl(ADMIN_KEY)}{pool}/billing"',
    ]


def _operator() -> list[str]:
    operator = _curl(OPERATOR_KEY)
    return [
        f'    {operator}/v1/organizations"',
        f'    {operator}/v1/organizations" \\',
        '      -H \'Content-Type: application/json\' -d \'{"id": "org_1", "name": "First"}\'',
    ]


def _curl(key: str) -> str:
    """Up to the path; answers end without a line end of their own."""
    return f'curl -sS -w \'\\n\' -u "${key}:" "$METERING_API_URL'

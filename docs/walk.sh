#!/usr/bin/env bash
# README's walk in one go, with `./metering up --demo` running: each command is shown, then run.
# Made from README by its test, which runs the same commands.
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
(. "${METERING_DATA_DIR:-.metering}/up.env" &&
    curl -sS -o /dev/null "$METERING_API_URL/health/live") 2>/dev/null || {
    echo "Nothing runs here: start ./metering up --demo in another terminal first." >&2
    exit 1
}
set -v

. "${METERING_DATA_DIR:-.metering}/up.env"
ORG="$METERING_API_URL/v1/organizations/org_7"
call() { curl -sS -w '\n' -H 'Content-Type: application/json' -u "$1:" "${@:2}"; }
call "$METERING_API_OPERATOR_KEY" "$METERING_API_URL/v1/organizations" -d '{"id":"org_7","name":"Northwind"}'
call "$METERING_API_OPERATOR_KEY" "$ORG/prices" -d '{"meter":"ai.tokens","micro_per_million_units":2000000000}'
ADMIN=$(./metering keys create admin --organization org_7)
call "$ADMIN" "$ORG/groups" -d '{"id":"group_editors","name":"Editors"}'
call "$ADMIN" "$ORG/websites" -d '{"id":"web_3","name":"northwind.example","group_id":"group_editors"}'
cat > /tmp/members.csv <<'EOF'
group,email
Editors,ann@northwind.example
Editors,ben@northwind.example
EOF
./metering groups import --organization org_7 /tmp/members.csv
./metering groups import --organization org_7 /tmp/members.csv --create-members --yes
call "$METERING_API_OPERATOR_KEY" "$ORG/grants" -d '{"id":"grant_web","pool_kind":"website","pool_id":"web_3","amount_micro":1500000}'
call "$METERING_API_OPERATOR_KEY" "$ORG/grants" -d '{"id":"grant_group","pool_kind":"group","pool_id":"group_editors","amount_micro":2000000}'
EVENT='{"specversion":"1.0","id":"evt_8f1c","source":"editor/eu-1","type":"ai.tokens","subject":"ann@northwind.example","organizationid":"org_7","data":{"quantity":1830,"website_id":"web_3"}}'
echo "$EVENT" | ./metering emit -
echo "$EVENT" | ./metering emit -
sleep 3  # until it can be queried
./metering explain evt_8f1c --organization org_7
./metering report spend --organization org_7 --period "$(date -u +%Y-%m)" --by website
./metering report credits --organization org_7
call "$ADMIN" "$ORG/groups"
curl -sS -u "$METERING_CLICKHOUSE_FINANCE_USER:$METERING_CLICKHOUSE_FINANCE_PASSWORD" \
  "$METERING_CLICKHOUSE_URL" --data "SELECT group_name, sum(cost_micro), sum(overage_micro)
  FROM metering.spend WHERE organization_id = 'org_7' GROUP BY group_name FORMAT CSVWithNames"
echo '{"specversion":"1.0","id":"evt_page","source":"editor/eu-1","type":"pages","subject":"ann@northwind.example","organizationid":"org_7","data":{"quantity":2}}' | ./metering emit -
./metering dead-letters list --organization org_7
call "$METERING_API_OPERATOR_KEY" "$ORG/prices" -d '{"meter":"pages","micro_per_million_units":5000000000000,"effective_at":"2026-01-01T00:00:00Z"}'
./metering dead-letters replay --organization org_7 --reason no_price
./metering dead-letters replay --organization org_7 --reason no_price
sleep 3
./metering report spend --organization org_7 --period "$(date -u +%Y-%m)" --by meter --format csv
call "$METERING_API_OPERATOR_KEY" "$METERING_API_URL/v1/packages" -d '{"id":"pack_5","name":"5 credits","credits_micro":5000000,"price_minor":500,"currency":"USD","sold_monthly":true}'
call "$ADMIN" "$ORG/groups/group_editors/billing" -d '{}'
CHECKOUT=$(call "$ADMIN" "$ORG/groups/group_editors/purchases" -d '{"package_id":"pack_5","quantity":3}' | sed 's/.*"checkout_url":"\([^"]*\)".*/\1/')
curl -sS -o /dev/null -w '%{http_code}\n' -d action=pay "$CHECKOUT"  # its button; or open it in a browser
sleep 3  # until the webhook has come and the worker has the grant
echo '{"specversion":"1.0","id":"evt_9a2d","source":"editor/eu-1","type":"ai.tokens","subject":"ann@northwind.example","organizationid":"org_7","data":{"quantity":1000}}' | ./metering emit -
sleep 3
./metering explain evt_9a2d --organization org_7
./metering credits show --organization org_7 --group group_editors
./metering credits history --organization org_7 --group group_editors

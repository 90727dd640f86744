-- Billing cycles, written by the sink from the one calendar (`schemas/cycles.py`) whenever an
-- organization's settings have changed, and extended as time goes by. One row an organization, so
-- that all of its cycles are replaced together. `settings_facts` counts the facts that they follow.

CREATE TABLE IF NOT EXISTS billing_cycle_rows
(
    organization_id String,
    settings_facts UInt64,
    -- Each begins, ends, and counts its days in a time zone.
    cycles Array(Tuple(DateTime64(6, 'UTC'), DateTime64(6, 'UTC'), String)),
    last_ends_at DateTime64(6, 'UTC'),
    computed_at DateTime64(6, 'UTC'),
    CONSTRAINT is_identified CHECK organization_id != '' AND notEmpty(cycles)
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY organization_id;

-- Half-open: `starts_at <= event_time < ends_at`. Every instant is in exactly one cycle, from two
-- years before the organization's first settings to three years from now. Spend of each cycle:
--
--   SELECT c.starts_at, c.ends_at, s.group_name, sum(s.credits), sum(s.money)
--   FROM spend AS s ASOF JOIN billing_cycles AS c
--       ON s.organization_id = c.organization_id AND s.event_time >= c.starts_at
--   WHERE s.organization_id = 'org_7'
--   GROUP BY ALL ORDER BY ALL
CREATE OR REPLACE VIEW billing_cycles AS
SELECT
    organization_id,
    cycle.1 AS starts_at,
    cycle.2 AS ends_at,
    cycle.3 AS time_zone
FROM billing_cycle_rows FINAL
ARRAY JOIN cycles AS cycle;

-- Amounts that a reader may sum are Int128 in every view: a sum has the type of what it sums, and
-- one of Int64 wraps around in silence.

CREATE OR REPLACE VIEW usage_rated AS
SELECT * REPLACE (
    toInt128(quantity_micro) AS quantity_micro,
    toInt128(cost_micro) AS cost_micro,
    toInt128(website_debit_micro) AS website_debit_micro,
    toInt128(group_debit_micro) AS group_debit_micro,
    toInt128(overage_micro) AS overage_micro
)
FROM usage_rated_rows FINAL;

CREATE OR REPLACE VIEW ledger AS
SELECT
    * REPLACE (toInt128(amount_micro) AS amount_micro),
    toDecimal128(amount_micro, 6) / 1000000 AS credits,
    toDecimal128(balance_after_micro, 6) / 1000000 AS balance_after_credits
FROM ledger_rows FINAL;

-- As in 0003; made again because they list the columns of `usage_rated`.

CREATE OR REPLACE VIEW spend AS
SELECT
    u.*,
    multiIf(
        u.stamped_group_id = '' OR ifNull(g.is_deleted, false), 'group_unassigned',
        u.stamped_group_id
    ) AS group_id,
    multiIf(
        group_id = 'group_unassigned', 'Unassigned',
        ifNull(g.name, '') = '', u.stamped_group_id,
        g.name
    ) AS group_name,
    toInt128(u.cost_micro) * u.credit_price_micro AS money_pico,
    toDecimal256(toInt128(u.cost_micro) * u.credit_price_micro, 6) / 1000000 AS money_micro,
    toDecimal256(toInt128(u.cost_micro) * u.credit_price_micro, 12) / 1000000000000 AS money,
    toDecimal128(u.cost_micro, 6) / 1000000 AS credits,
    toDecimal128(u.website_debit_micro, 6) / 1000000 AS website_credits,
    toDecimal128(u.group_debit_micro, 6) / 1000000 AS group_credits,
    toDecimal128(u.overage_micro, 6) / 1000000 AS overage_credits
FROM usage_rated AS u
LEFT JOIN billing_groups AS g
    ON u.organization_id = g.organization_id AND u.stamped_group_id = g.group_id;

CREATE OR REPLACE VIEW usage_known_now AS
SELECT
    m.*,
    multiIf(
        m.website_id = '', '',
        arrayExists(span -> span.1 <= m.event_time, w.spans),
        arrayLast(span -> span.1 <= m.event_time, w.spans).2,
        'group_unassigned'
    ) AS known_website_group_id
FROM
(
    SELECT
        u.*,
        if(
            arrayExists(span -> span.1 <= u.event_time, t.spans),
            arrayLast(span -> span.1 <= u.event_time, t.spans).2,
            'group_unassigned'
        ) AS known_group_id
    FROM usage_rated AS u
    LEFT JOIN
    (
        SELECT organization_id, member_id, arraySort(groupArray((effective_at, group_id))) AS spans
        FROM memberships
        GROUP BY organization_id, member_id
    ) AS t
        ON u.organization_id = t.organization_id AND u.member_id = t.member_id
) AS m
LEFT JOIN
(
    SELECT organization_id, website_id, arraySort(groupArray((effective_at, group_id))) AS spans
    FROM website_groups
    GROUP BY organization_id, website_id
) AS w
    ON m.organization_id = w.organization_id AND m.website_id = w.website_id;

CREATE OR REPLACE VIEW spend_known_now AS
SELECT
    u.*,
    if(ifNull(g.is_deleted, false), 'group_unassigned', u.known_group_id) AS group_id,
    multiIf(
        group_id = 'group_unassigned', 'Unassigned',
        ifNull(g.name, '') = '', u.known_group_id,
        g.name
    ) AS group_name,
    toInt128(u.cost_micro) * u.credit_price_micro AS money_pico,
    toDecimal256(toInt128(u.cost_micro) * u.credit_price_micro, 6) / 1000000 AS money_micro,
    toDecimal256(toInt128(u.cost_micro) * u.credit_price_micro, 12) / 1000000000000 AS money,
    toDecimal128(u.cost_micro, 6) / 1000000 AS credits,
    toDecimal128(u.website_debit_micro, 6) / 1000000 AS website_credits,
    toDecimal128(u.group_debit_micro, 6) / 1000000 AS group_credits,
    toDecimal128(u.overage_micro, 6) / 1000000 AS overage_credits
FROM usage_known_now AS u
LEFT JOIN billing_groups AS g
    ON u.organization_id = g.organization_id AND u.known_group_id = g.group_id;

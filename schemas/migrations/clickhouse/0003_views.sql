-- What readers see. Every stored row counts once here (FINAL), also after it was sent again.
-- Name the organization in a query: it is the first part of every key.
-- `*_micro` are micro-credits; `credits` and `money` are the same as exact decimals.

CREATE OR REPLACE VIEW usage_rated AS
SELECT * FROM usage_rated_rows FINAL;

CREATE OR REPLACE VIEW ledger AS
SELECT
    *,
    toDecimal128(amount_micro, 6) / 1000000 AS credits,
    toDecimal128(balance_after_micro, 6) / 1000000 AS balance_after_credits
FROM ledger_rows FINAL;

CREATE OR REPLACE VIEW facts_applied AS
SELECT * FROM facts_applied_rows FINAL;

CREATE OR REPLACE VIEW dead_letters AS
SELECT * FROM dead_letter_rows FINAL;

CREATE OR REPLACE VIEW organizations AS
SELECT * FROM organization_rows FINAL;

CREATE OR REPLACE VIEW billing_group_names AS
SELECT organization_id, group_id, version, name, is_deleted, updated_at
FROM billing_group_rows FINAL;

CREATE OR REPLACE VIEW members AS
SELECT * FROM member_rows FINAL;

CREATE OR REPLACE VIEW websites AS
SELECT * FROM website_rows FINAL;

-- Every group that is known by name or by its deletion. A deletion holds for all history, at once
-- and for ever, whether it came as a fact or from the control plane.
CREATE OR REPLACE VIEW billing_groups AS
SELECT
    organization_id,
    group_id,
    argMax(stored_name, stored_version) AS name,
    max(is_group_deleted) AS is_deleted
FROM
(
    SELECT
        organization_id,
        group_id,
        name AS stored_name,
        version AS stored_version,
        is_deleted AS is_group_deleted
    FROM billing_group_rows FINAL
    UNION ALL
    SELECT organization_id, group_id, '', -1, true
    FROM facts_applied_rows FINAL
    WHERE type = 'group_deleted' AND effective_at <= now64(6)
)
GROUP BY organization_id, group_id;

-- In which group a member was, from `effective_at` until before `ends_at` (2299 where it still
-- is), by all facts applied until now. Of facts with the same `effective_at` the greatest version
-- holds.
CREATE OR REPLACE VIEW memberships AS
SELECT
    organization_id,
    member_id,
    effective_at,
    leadInFrame(effective_at, 1, toDateTime64('2299-12-31 00:00:00', 6, 'UTC')) OVER (
        PARTITION BY organization_id, member_id
        ORDER BY effective_at
        ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    ) AS ends_at,
    group_id,
    version,
    how,
    recorded_at,
    applied_at
FROM
(
    SELECT
        organization_id,
        member_id,
        effective_at,
        argMax(if(type = 'member_removed', 'group_unassigned', fact_group_id), fact_version)
            AS group_id,
        max(fact_version) AS version,
        argMax(fact_how, fact_version) AS how,
        argMax(fact_recorded_at, fact_version) AS recorded_at,
        argMax(fact_applied_at, fact_version) AS applied_at
    FROM
    (
        SELECT
            organization_id,
            member_id,
            effective_at,
            type,
            group_id AS fact_group_id,
            version AS fact_version,
            how AS fact_how,
            recorded_at AS fact_recorded_at,
            applied_at AS fact_applied_at
        FROM facts_applied_rows FINAL
        WHERE topic = 'memberships' AND type IN ('member_assigned', 'member_removed')
    )
    GROUP BY organization_id, member_id, effective_at
);

CREATE OR REPLACE VIEW website_groups AS
SELECT
    organization_id,
    website_id,
    effective_at,
    argMax(fact_group_id, fact_version) AS group_id,
    max(fact_version) AS version
FROM
(
    SELECT
        organization_id,
        website_id,
        effective_at,
        group_id AS fact_group_id,
        version AS fact_version
    FROM facts_applied_rows FINAL
    WHERE topic = 'memberships' AND type = 'website_assigned'
)
GROUP BY organization_id, website_id, effective_at;

-- The report as stamped, a row an event and revision. Spend sums all rows; events are the rows with
-- revision 0. `group_id` and `group_name` are as reports show them: a deleted group is Unassigned.
-- `money_micro` is exact (cost times price / 10^6); `money_pico` is the same as a whole number of
-- 10^-12 of the currency's unit, which sums without loss. Do not add different currencies.
--
--   SELECT group_name, sum(credits), sum(money) FROM spend
--   WHERE organization_id = 'org_7'
--     AND event_time >= '2026-11-01' AND event_time < '2026-12-01'
--   GROUP BY group_name
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

-- Every event with the group that all facts known now give it: `known_group_id` instead of
-- `stamped_group_id`, and `known_website_group_id`, the group of its website (empty without one).
-- Only groups are looked up again: prices and funding stay as they were recorded, and a subject
-- that was unknown stays so unless it is a member's own id (addresses are not in the facts).
--
-- A plain join on whole timelines, not ASOF: only through a plain join does ClickHouse hand the
-- filter on the organization down to the facts (measured: 2 s with ASOF over 4 million facts).
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

-- The report as known now; columns as in `spend`.
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

-- The events that `spend` and `spend_known_now` show in different groups, since a fact was applied
-- after them that took effect before them.
CREATE OR REPLACE VIEW stamps_changed_by_late_facts AS
SELECT
    k.organization_id AS organization_id,
    k.event_time AS event_time,
    k.source AS source,
    k.event_id AS event_id,
    k.member_id AS member_id,
    k.stamped_group_id AS stamped_group_id,
    k.known_group_id AS known_group_id
FROM spend_known_now AS k
LEFT JOIN billing_groups AS s
    ON k.organization_id = s.organization_id AND k.stamped_group_id = s.group_id
WHERE k.revision = 0
    AND k.stamped_group_id != k.known_group_id
    AND k.group_id != if(ifNull(s.is_deleted, false), 'group_unassigned', k.stamped_group_id);

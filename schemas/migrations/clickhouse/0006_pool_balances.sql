-- Credits that are left: a row a grant, and one a pool that ever owed something (`grant_id` is
-- empty there). Of the ledger, the facts and what rated events took; equals what the worker keeps,
-- as soon as all of it is here.
--
--   issued_micro      what was granted (a positive adjustment is a grant too)
--   repaid_micro      of it repaid the pool's debt, at once
--   revoked_micro     taken back by refunds, disputes and failed payments
--   owed_micro        of that had been spent: it became the pool's debt (or, where the pool was
--                     closed, the organization's `uncollected`)
--   forfeited_micro   gone with the grant's period, or with its group
--   adjusted_micro    taken by negative adjustments
--   used_micro        paid for usage, all revisions; the last time until `last_used_at`
--   remaining_micro   what is left, with what has expired and is not forfeited yet:
--                     issued - repaid - (revoked - owed) - forfeited - adjusted - used
--   debt_micro        what the pool owes; only in the row without a grant
--   balance_micro     remaining - debt: summed over a pool's rows, the balance of the pool
--
-- `source` tells where a grant came from; `expires_at` is NULL where it never does. A grant is
-- eligible for usage with `effective_at <= event_time < expires_at`.
--
--   SELECT pool_kind, pool_id, sum(remaining_micro), sum(debt_micro) FROM pool_balances
--   WHERE organization_id = 'org_7'
--   GROUP BY pool_kind, pool_id
--
-- A union and no join, so that filters on the organization and the pool reach every stored table.
CREATE OR REPLACE VIEW pool_balances AS
SELECT
    organization_id,
    pool_kind,
    pool_id,
    grant_id,
    max(grant_kind) AS kind,
    max(grant_source) AS source,
    max(grant_effective_at) AS effective_at,
    max(grant_expires_at) AS expires_at,
    -sumIf(amount_micro, movement = 'issued') AS issued_micro,
    sumIf(amount_micro, movement = 'repaid') AS repaid_micro,
    sumIf(amount_micro, movement = 'revoked') AS revoked_micro,
    -sumIf(amount_micro, movement = 'owed') AS owed_micro,
    sumIf(amount_micro, movement = 'forfeited') AS forfeited_micro,
    -sumIf(amount_micro, movement = 'adjusted') AS adjusted_micro,
    sumIf(amount_micro, movement = 'used') AS used_micro,
    maxIf(moved_at, movement = 'used') AS last_used_at,
    sumIf(amount_micro, movement IN ('available', 'adjusted')) - used_micro AS remaining_micro,
    -sumIf(amount_micro, movement = 'debt') AS debt_micro,
    remaining_micro - debt_micro AS balance_micro
FROM
(
    SELECT
        organization_id,
        toString(pool_kind) AS pool_kind,
        pool_id,
        grant_id,
        multiIf(
            account IN ('issued', 'adjusted'), 'issued',
            account = 'debt' AND kind IN ('grant', 'adjustment'), 'repaid',
            account IN ('debt', 'uncollected'), 'owed',
            account = 'available' AND kind = 'adjustment' AND amount_micro < 0, 'adjusted',
            toString(account)
        ) AS movement,
        toInt128(amount_micro) AS amount_micro,
        CAST(NULL, 'Nullable(DateTime64(6, \'UTC\'))') AS moved_at,
        '' AS grant_kind,
        '' AS grant_source,
        CAST(NULL, 'Nullable(DateTime64(6, \'UTC\'))') AS grant_effective_at,
        CAST(NULL, 'Nullable(DateTime64(6, \'UTC\'))') AS grant_expires_at
    FROM ledger_rows FINAL
    WHERE grant_id != ''
    UNION ALL
    SELECT
        organization_id, toString(pool_kind), pool_id, '', 'debt', toInt128(amount_micro),
        NULL, '', '', NULL, NULL
    FROM ledger_rows FINAL
    WHERE account = 'debt'
    UNION ALL
    SELECT
        organization_id,
        allocation.pool,
        if(allocation.pool = 'website', website_id, funding_group_id) AS paying_id,
        allocation.grant_id,
        'used',
        sum(toInt128(allocation.amount_micro)),
        max(event_time),
        '',
        '',
        NULL,
        NULL
    FROM usage_rated_rows FINAL
    ARRAY JOIN allocations AS allocation
    GROUP BY organization_id, allocation.pool, paying_id, allocation.grant_id
    UNION ALL
    SELECT
        organization_id,
        if(website_id = '', 'group', 'website'),
        if(website_id = '', group_id, website_id),
        if(type = 'granted', grant_id, concat('adjustment:', toString(version))),
        'fact',
        toInt128(0),
        NULL,
        if(type = 'granted', JSONExtractString(fact, 'kind'), 'one_time'),
        if(
            type = 'granted', JSONExtractString(fact, 'source'),
            concat('adjustment:', JSONExtractString(fact, 'why'))
        ),
        effective_at,
        parseDateTime64BestEffortOrNull(JSONExtractString(fact, 'expires_at'), 6, 'UTC')
    FROM facts_applied_rows FINAL
    WHERE topic = 'credits'
        AND (type = 'granted' OR type = 'adjusted' AND JSONExtractInt(fact, 'amount_micro') > 0)
)
GROUP BY organization_id, pool_kind, pool_id, grant_id;

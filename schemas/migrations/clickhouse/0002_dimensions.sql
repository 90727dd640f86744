-- What facts do not carry: names and e-mail addresses, written by the control plane. `version` grows
-- with each change of the same thing, and the row with the greatest one holds.

CREATE TABLE IF NOT EXISTS organization_rows
(
    organization_id String,
    version Int64,
    name String,
    updated_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY organization_id;

-- The only one with its history: under which names a group was billed.
CREATE TABLE IF NOT EXISTS billing_group_rows
(
    organization_id String,
    group_id String,
    version Int64,
    name String,
    is_deleted Bool,
    updated_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (organization_id, group_id, version);

-- No history: a person's former name or address must not outlive its correction or erasure.
CREATE TABLE IF NOT EXISTS member_rows
(
    organization_id String,
    member_id String,
    version Int64,
    name String,
    email String,
    is_service_account Bool,
    is_removed Bool,
    updated_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (organization_id, member_id);

CREATE TABLE IF NOT EXISTS website_rows
(
    organization_id String,
    website_id String,
    version Int64,
    name String,
    is_deleted Bool,
    updated_at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (organization_id, website_id);

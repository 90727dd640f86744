-- What the sink writes. Nobody else reads these tables: readers use the views of 0003.
--
-- A block that was not acknowledged is sent again, so every key is derived from the input alone and
-- equal keys replace each other. A key never changes its partition, because what the partition is
-- computed from is part of the key.
--
-- Amounts are Int64 micro-credits; sum them in 128 bits. Times are UTC with microseconds.
-- The constraints keep out rows that would be wrong in silence: JSON that lacks a field is filled
-- with zeros and empty text.

CREATE TABLE IF NOT EXISTS usage_rated_rows
(
    organization_id String,
    source String,
    event_id String,
    revision Int64,
    event_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    meter LowCardinality(String),
    subject String,
    member_id String,
    resolved_by LowCardinality(String),
    website_id String,
    dimensions Map(String, String),
    stamped_group_id String,
    funding_group_id String,
    membership_version Int64,
    settings_version Int64,
    price_version Int64,
    price_micro Int64,
    quantity_micro Int64,
    cost_micro Int64,
    website_debit_micro Int64,
    group_debit_micro Int64,
    overage_micro Int64,
    credit_price_micro Int64,
    currency LowCardinality(String),
    allocations Array(Tuple(pool String, grant_id String, amount_micro Int64)),
    website_balance_micro Int64,
    group_balance_micro Int64,
    input_topic LowCardinality(String),
    input_partition Int32,
    input_offset Int64 CODEC(Delta, ZSTD),
    appended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    recorded_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    -- `metering explain` knows the event's id but not its time.
    INDEX by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    CONSTRAINT is_identified
        CHECK organization_id != '' AND event_id != '' AND revision >= 0 AND event_time > 0,
    CONSTRAINT is_covered
        CHECK cost_micro = website_debit_micro + group_debit_micro + overage_micro
)
ENGINE = ReplacingMergeTree(recorded_at)
PARTITION BY toYYYYMM(event_time)
PRIMARY KEY (organization_id, event_time)
ORDER BY (organization_id, event_time, source, event_id, revision);

-- Small beside usage, and read by pool over all time: one partition.
CREATE TABLE IF NOT EXISTS ledger_rows
(
    organization_id String,
    entry_id String,
    leg Int32,
    kind LowCardinality(String),
    account LowCardinality(String),
    pool_kind LowCardinality(String),
    pool_id String,
    grant_id String,
    amount_micro Int64,
    balance_after_micro Int64,
    caused_by_topic LowCardinality(String),
    caused_by_version Int64,
    effective_at DateTime64(6, 'UTC'),
    recorded_at DateTime64(6, 'UTC'),
    CONSTRAINT is_identified CHECK organization_id != '' AND entry_id != ''
)
ENGINE = ReplacingMergeTree(recorded_at)
ORDER BY (organization_id, entry_id, leg);

CREATE TABLE IF NOT EXISTS facts_applied_rows
(
    organization_id String,
    topic LowCardinality(String),
    version Int64,
    type LowCardinality(String),
    effective_at DateTime64(6, 'UTC'),
    recorded_at DateTime64(6, 'UTC'),
    applied_at DateTime64(6, 'UTC'),
    member_id String,
    group_id String,
    website_id String,
    grant_id String,
    how LowCardinality(String),
    fact String,
    input_partition Int32,
    input_offset Int64,
    CONSTRAINT is_identified CHECK organization_id != '' AND topic != '' AND version > 0
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY (organization_id, topic, version);

-- Keyed by where the dead letter itself lies. Bytes are base64, since they may be anything;
-- `headers` are (name, base64 value) in their order, without those that the worker added.
CREATE TABLE IF NOT EXISTS dead_letter_rows
(
    cluster_id LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    recorded_at DateTime64(3, 'UTC'),
    organization_id String,
    source String,
    event_id String,
    reason LowCardinality(String),
    detail String,
    input_topic LowCardinality(String),
    input_partition Int32,
    input_offset Int64,
    appended_at DateTime64(3, 'UTC'),
    key_base64 String,
    value_base64 String,
    headers Array(Tuple(name String, value_base64 String)),
    INDEX by_event_id event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_organization organization_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(recorded_at)
PARTITION BY toYYYYMM(recorded_at)
ORDER BY (cluster_id, topic, partition, offset, recorded_at);

-- Rows that the engine refused for their content, with the bytes that the sink had.
CREATE TABLE IF NOT EXISTS sink_rejects
(
    cluster_id LowCardinality(String),
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    appended_at DateTime64(3, 'UTC'),
    error String,
    value_base64 String
)
ENGINE = ReplacingMergeTree(appended_at)
ORDER BY (cluster_id, topic, partition, offset);

"""Where Kafka's bytes end and ours begin: all that knows the inside of aiokafka.

`record_batch.py` writes one record batch and reads what anybody may have put into one;
`whole_batches.py` reads fetches by whole batches. May import aiokafka alone.

What we know of aiokafka 0.14, for whoever upgrades it. (1) Its C code takes only exact `str` for
the name of a header and reads and writes it as UTF-8; Kafka takes any bytes. Its Python twins
(`_DefaultRecordBatchPy`, `_DefaultRecordBatchBuilderPy`) call `decode` and `encode` of what they
are given, so they serve where a name is no UTF-8. (2) It unpacks without a limit, and one failure
in a batch fails the fetch for ever; `fetcher.MemoryRecords` is the one place where fetched bytes
become batches, so it is replaced there, for every consumer of the process. (3) `PartitionRecords`
iterates over `next_batch()` and knows about checksums, markers and aborted transactions;
`Fetcher._records` holds its results, and `fetched_records` counts what comes out. (4)
`BatchBuilder` has `_builder`, `_relative_offset` and `_set_producer_state`, which insists on the C
builder; a batch's first record is taken whatever its size. (5) `_subscription.fetch_context()` is
how a group hears that its member polls. `tests/wire` and `tests/exactly_once` fail where
one of these no longer holds.
"""

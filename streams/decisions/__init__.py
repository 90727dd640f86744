"""What is decided about every event and fact: pure functions over data.

Lives here: parsing, identity, dedupe, attribution, rating, the funding waterfall, facts, ledger
postings, forfeits. Time, secrets and limits are arguments; a decision never mutates the state,
what it wants changed is applied by an explicit second call.

May import: `schemas`, msgspec, xxhash, the standard library's calculations. Never: faust,
aiokafka, asyncio, time, random, os, logging, or anything that does I/O.
"""

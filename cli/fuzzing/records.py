"""Records of all kinds, by a seed: good ones, mutated ones, and what nobody would think of.

The corpus is a file of JSON lines: what once broke something, kept for ever. Its texts stand for
bytes, a character each (Latin-1).
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from schemas.headers import DEAD_LETTER_HEADERS, FORWARDED, PACKED, PART
from schemas.topics import CREDITS, FACTS, INPUTS, MEMBERSHIPS, ORIGINAL_APPEND_TIME_HEADER, USAGE
from streams.kafka import home_partition

ORGANIZATIONS: Final = tuple(f"org_{number}" for number in range(12))
GROUP: Final = {"group_id": "group_1"}
BATCH_RECORDS: Final = 40
MEND_EVERY: Final = 30
"""Batches: then one organization's facts are published once more, so that gaps are filled."""
CODECS: Final = (None, None, "snappy", "zstd", "lz4", "gzip")
LARGEST_BYTES: Final = 1_047_000
TIMES: Final = (
    *("1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "now"),
    *("2026-02-30T00:00:00Z", "2026-11-01T24:00:00Z", "2026-11-01T12:00:00", "-1", ""),
    *("9999-12-31T23:59:59-23:59", "2026-11-01T12:00:60Z", "10000-01-01T00:00:00Z"),
    "2026-11-01 12:00:00.1234567+05:30",
)
NUMBERS: Final = (
    *("0", "-0", "1", "1.0", "1e3", "1e999999", "-1", "NaN", "Infinity", "0.1", "00", "+1", "1_0"),
    *("9223372036854", "9223372036855", "9223372036854775807", "9223372036854775808"),
    *("9" * 400, "-" + "9" * 400, "1" + "0" * 5_000, "0." + "0" * 500 + "1"),
)
TEXTS: Final = (
    *("", "\\u0000", "\\ud800", "\\udc00\\ud800", "\\ud83d\\ude00", "x" * 256, "x" * 257, "\u202e"),
    *(
        "é",
        "\u200b",
        "'",
        '\\"',
        "\\\\",
        "\\n",
        "group_unassigned",
        "org_0",
        "\U0010ffff",
        "\ufffe",
    ),
)
NAMES: Final = (
    *(b"\xff\xfe", b"", b"\x00", "é".encode(), b"\xc3", b"ce_id", b"ce_source", b"ce_type"),
    *(
        b"CE_TIME",
        b"ce_specversion",
        b"ce_subject",
        b"ce_\xff",
        b"content-type",
        b"x" * 300,
        b"traceparent",
    ),
    *(name.encode() for name in (*DEAD_LETTER_HEADERS, FORWARDED, PACKED, PART)),
    *(ORIGINAL_APPEND_TIME_HEADER.encode(),) * 4,
)
CONTENTS: Final = (
    *(
        b"",
        None,
        b"\xff",
        b"1.0",
        b"application/cloudevents+json",
        b"0",
        b"-1",
        b"9" * 400,
        b"soon",
    ),
    *(b"253402300800000", b"99999999999999", b"1/2", b"record-batch", b"x" * 5_000),
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A record as it is to be sent. Names of headers are bytes with surrogate escapes."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class SentBatch:
    """Records that go to one partition as one record batch."""

    topic: str
    partition: int
    records: Sequence[Sent]
    codec: str | None
    created_ms: int
    """Says the producer; the broker's time of appending counts."""


def read_corpus(path: Path) -> list[Sent]:
    """Raises OSError, ValueError."""
    return [_of_corpus(json.loads(line)) for line in path.read_text("utf-8").splitlines() if line]


def _of_corpus(row: dict[str, Any]) -> Sent:
    def raw(text: str | None) -> bytes | None:
        return None if text is None else text.encode("latin-1")

    value = raw(row["value"])
    for text, times in row.get("repeated", []):
        value = (value or b"") + text.encode("latin-1") * times
    headers = tuple((_name(name.encode("latin-1")), raw(text)) for name, text in row["headers"])
    return Sent(row["topic"], raw(row["key"]), value, headers)


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


class Fuzzer:
    """Makes records from a seed; `now` is when they are sent."""

    def __init__(self, seed: int, partitions: int, now: datetime, corpus: Sequence[Sent]) -> None:
        self._random = Random(f"{seed}:fuzz")  # noqa: S311 - no secrets
        self._partitions = partitions
        self._now = now
        self._corpus = corpus
        self._serial = 0
        self._versions = dict.fromkeys(((t, o) for t in INPUTS for o in ORGANIZATIONS), 0)
        self._former: list[Sent] = []
        self._facts: dict[tuple[str, str], list[Sent]] = defaultdict(list)
        self._makers: list[tuple[int, Callable[[str], Sent]]] = [
            (40, self._event),
            (14, self._fact),
            (6, self._again),
            (14, self._mutated),
            (8, self._nested),
            (8, self._with_odd_headers),
            (4, self._binary),
            (5, self._bytes),
            (1, self._large),
        ]

    def opening(self) -> Iterator[SentBatch]:
        """Organizations, groups, members, prices and credits; then the corpus."""
        for organization in ORGANIZATIONS:
            home = home_partition(organization.encode(), self._partitions)
            facts: list[dict[str, Any]] = [
                {"type": "organization_created"},
                {"type": "group_created", **GROUP},
                {"type": "member_assigned", "member_id": "user_1", **GROUP, "how": "api"},
                {"type": "price_set", "meter": "ai.tokens", "micro_per_million_units": 10**6},
            ]
            batch = [self._numbered(MEMBERSHIPS, organization, fact) for fact in facts]
            yield SentBatch(MEMBERSHIPS, home, batch, None, 0)
            yield SentBatch(CREDITS, home, [self._granted(organization)], None, 0)
        for record in self._corpus:
            yield self._batch([record])

    def batches(self, count: int) -> Iterator[SentBatch]:
        """`count` records or a few more."""
        weights = [weight for weight, _ in self._makers]
        while count > 0:
            organization = self._random.choice(ORGANIZATIONS)
            by_topic: dict[str, list[Sent]] = {name: [] for name in INPUTS}
            for _ in range(self._random.randint(1, BATCH_RECORDS)):
                ((_, make),) = self._random.choices(self._makers, weights)
                record = make(organization)
                if len(record.value or b"") > 100_000:
                    count -= 1
                    yield self._batch([record])
                else:
                    by_topic[record.topic].append(record)
                if len(self._former) < 500:
                    self._former.append(record)
                elif len(record.value or b"") < 5_000:
                    self._former[self._random.randrange(500)] = record
            for records in by_topic.values():
                if records:
                    count -= len(records)
                    yield self._batch(records)
            if self._random.randrange(MEND_EVERY) == 0:
                topic = self._random.choice(FACTS)
                facts = self._facts[topic, organization]
                count -= len(facts)
                home = home_partition(organization.encode(), self._partitions)
                yield SentBatch(topic, home, facts[:], "snappy", 0)

    def _batch(self, records: list[Sent]) -> SentBatch:
        chance = self._random
        key = records[0].key
        partition = home_partition(key, self._partitions) if key else 0
        if chance.random() < 0.1:
            partition = chance.randrange(self._partitions)
        codec = chance.choice(CODECS)
        if sum(len(record.value or b"") for record in records) > LARGEST_BYTES:
            codec = chance.choice(("zstd", "gzip"))
        created_ms = chance.choice((0, 1, 10**12, 253_402_300_799_999, chance.randrange(2**47)))
        return SentBatch(records[0].topic, partition, records, codec, created_ms)

    # ---- ways to make a record

    def _event(self, organization: str) -> Sent:
        self._serial += 1
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": f"e{self._serial}",
            "source": "fuzz",
            "type": "ai.tokens",
            "subject": self._random.choice(("user_1", "user_2")),
            "organizationid": organization,
            "data": {"quantity": self._random.randrange(10**6)},
        }
        if self._random.random() < 0.3:
            at = self._now - timedelta(days=self._random.choice((0, 1, 20, 34, 36, 300)))
            event["time"] = at.isoformat()
        return Sent(USAGE, organization.encode(), json.dumps(event).encode())

    def _fact(self, organization: str) -> Sent:
        if self._random.random() < 0.4:
            return self._granted(organization)
        kind = self._random.randrange(4)
        number = self._random.randrange(50)
        fact: dict[str, Any] = (
            {"type": "group_created", "group_id": f"group_{number}"},
            {"type": "member_assigned", "member_id": f"user_{number}", **GROUP, "how": "csv"},
            {"type": "price_set", "meter": f"m{number}", "micro_per_million_units": number},
            {"type": "website_assigned", "website_id": f"w{number}", **GROUP},
        )[kind]
        return self._numbered(MEMBERSHIPS, organization, fact)

    def _granted(self, organization: str) -> Sent:
        self._serial += 1
        fact = {
            "type": "granted",
            "grant_id": f"g{self._serial}",
            "pool_kind": "group",
            "pool_id": "group_1",
            "kind": "one_time",
            "amount_micro": self._random.randrange(1, 10**9),
            "source": "admin:fuzz",
            "expires_at": (self._now + timedelta(seconds=self._random.randrange(60))).isoformat(),
        }
        return self._numbered(CREDITS, organization, fact)

    def _numbered(self, topic: str, organization: str, fact: dict[str, Any]) -> Sent:
        version = self._versions[topic, organization] + 1
        if self._random.random() < 0.02 and version > 4:
            version = self._random.choice((version - 1, version + 7, 2**63, 0, -1))
        is_next = version == self._versions[topic, organization] + 1
        record = {
            "organization_id": organization,
            "version": version,
            "recorded_at": self._now.isoformat(),
            "effective_at": "2026-01-01T00:00:00Z",
            "fact": fact,
        }
        numbered = Sent(topic, organization.encode(), json.dumps(record).encode())
        if is_next:
            self._versions[topic, organization] = version
            self._facts[topic, organization].append(numbered)
        return numbered

    def _again(self, organization: str) -> Sent:
        """As it was, or to another topic, or under another key."""
        former = self._random.choice(self._former or [self._event(organization)])
        kind = self._random.randrange(6)
        topic = self._random.choice(INPUTS) if kind == 0 else former.topic
        keys = (None, b"", b"\xff", organization.encode(), b"k" * 2_000)
        key = self._random.choice(keys) if kind == 1 else former.key
        return Sent(topic, key, former.value, former.headers)

    def _mutated(self, organization: str) -> Sent:
        original = self._random.choice((self._event, self._fact))(organization)
        if self._corpus and self._random.random() < 0.2:
            original = self._random.choice(self._corpus)
        raw = bytearray((original.value or b"")[:20_000])
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randrange(len(raw) + 1)
            some = self._random.randrange(1, 30)
            match self._random.randrange(6):
                case 0:
                    raw[at : at + 1] = self._random.randbytes(1)
                case 1:
                    del raw[at : at + some]
                case 2:
                    raw[at:at] = raw[at : at + some]
                case 3:
                    self._replace_a_token(raw)
                case 4:
                    raw[at:at] = self._random.choice((b"null", b"{}", b"[", b'"', b",", b'"id":1,'))
                case _:
                    del raw[at:]
        return Sent(original.topic, original.key, bytes(raw), original.headers)

    def _replace_a_token(self, raw: bytearray) -> None:
        """One of the values becomes something of its kind that is hard to read."""
        begin = raw.find(b": ", self._random.randrange(len(raw) + 1)) + 2
        end = min((at for at in (raw.find(c, begin) for c in (b",", b"}")) if at >= 0), default=-1)
        if begin < 2 or end < 0:
            return
        times = [time.replace("now", self._now.isoformat()) for time in TIMES]
        texts = [f'"{text}"' for text in (*times, *TEXTS)]
        raw[begin:end] = self._random.choice((*NUMBERS, *texts, "null", "true", "[]")).encode()

    def _nested(self, organization: str) -> Sent:
        original = self._random.choice((self._event, self._fact))(organization)
        deep = self._random.choice((10, 100, 500, 990, 1_000, 1_024, 2_000, 9_000, 30_000))
        opened, closed = self._random.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"id":', b"}]")))
        inside = opened * deep + b"1" + closed * deep
        value = original.value or b""
        if self._random.random() < 0.3:
            return Sent(original.topic, original.key, inside)
        cut = value.find(b": ", self._random.randrange(len(value))) + 2
        end = value.find(b",", cut)
        return Sent(original.topic, original.key, value[:cut] + inside + value[end:])

    def _with_odd_headers(self, organization: str) -> Sent:
        original = self._random.choice((self._event, self._event, self._fact))(organization)
        names = [
            self._random.choice((*NAMES, self._random.randbytes(4)))
            for _ in range(self._random.randint(1, 6))
        ]
        headers = tuple((_name(name), self._random.choice(CONTENTS)) for name in names)
        if self._random.random() < 0.3:
            at_ms = int(self._now.timestamp() * 1000) - self._random.randrange(70 * 86_400_000)
            headers += ((ORIGINAL_APPEND_TIME_HEADER, str(at_ms).encode()),)
        return Sent(original.topic, original.key, original.value, headers)

    def _binary(self, organization: str) -> Sent:
        self._serial += 1
        names = {
            "ce_specversion": b"1.0",
            "ce_id": b"b%d" % self._serial,
            "ce_source": b"fuzz",
            "ce_type": b"ai.tokens",
            "ce_subject": b"user_1",
            "ce_time": self._now.isoformat().encode(),
        }
        if self._random.random() < 0.5:
            names[self._random.choice(list(names))] = self._random.choice(CONTENTS) or b""
        return Sent(USAGE, organization.encode(), b'{"quantity":1}', tuple(names.items()))

    def _bytes(self, organization: str) -> Sent:
        topic, key = self._random.choice(INPUTS), organization.encode()
        size = self._random.choice((0, 1, 3, 61, 1_000, 65_536, 65_537))
        return Sent(topic, key, self._random.choice((None, self._random.randbytes(size))))

    def _large(self, organization: str) -> Sent:
        """The largest that the broker takes; what it takes only compressed; and bombs."""
        topic, key = self._random.choice(INPUTS), organization.encode()
        match self._random.randrange(8):
            case 0 | 1:
                return Sent(topic, key, self._random.randbytes(LARGEST_BYTES))
            case 2 | 3:
                return Sent(topic, key, b"%d" % self._random.randrange(10**9) + bytes(9 << 20))
            case 4:
                return Sent(topic, key, bytes(40 << 20))
            case 5:
                many = tuple((f"h{number}", b"x" * 900) for number in range(6_000))
                return Sent(topic, key, bytes(LARGEST_BYTES + 1), many)
            case _:
                event = self._event(organization)
                return Sent(USAGE, None, event.value, (("padding", b"x" * 300_000),))


def now() -> datetime:
    return datetime.now(UTC)

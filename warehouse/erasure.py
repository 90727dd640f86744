"""Forgetting a person in what the sink wrote: usage that was sent under an address, and the bytes
of dead letters, and of rows that ClickHouse refused, that name the person.

The member's id stands in the address's place; a dead letter keeps its reason and position, a
refused row its position, and no more. A row that the sink sends again brings it back for as long as
the topic is retained: whoever must be sure erases once more after that.
"""

import re
from base64 import b64decode
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import msgspec

from schemas import codec
from warehouse import dimensions

ERASED: Final = "(erased)"
OFFSETS_A_STATEMENT: Final = 10_000
WORD: Final = re.compile(r"""[^\s"'<>(){}\[\],;:=&|\\]+""")

_LETTERS: Final = (
    "SELECT cluster_id, topic, partition, offset, "
    "(cluster_id, input_topic, if(input_topic = '', partition, input_partition), "
    "if(input_topic = '', offset, input_offset)) AS input, "
    "value_base64, headers.value_base64, detail, source, event_id FROM dead_letter_rows "
    "WHERE organization_id = {organization:String} ORDER BY input, partition, offset"
)
_REJECTS: Final = "SELECT cluster_id, topic, partition, offset, value_base64 FROM sink_rejects"
_THESE: Final = (
    "WHERE cluster_id = {cluster:String} AND topic = {topic:String} "
    "AND partition = {partition:Int32} AND offset IN {offsets:Array(Int64)} "
    "SETTINGS mutations_sync = 2"
)
_EMPTY_LETTERS: Final = (
    "ALTER TABLE dead_letter_rows UPDATE value_base64 = '', "
    "headers = CAST([], 'Array(Tuple(name String, value_base64 String))'), "
    f"detail = {{erased:String}}, source = '', event_id = '' {_THESE}"
)
_EMPTY_REJECTS: Final = (
    f"ALTER TABLE sink_rejects UPDATE value_base64 = '', error = {{erased:String}} {_THESE}"
)

Offsets = dict[tuple[str, str, int], list[int]]
"""By cluster, topic and partition."""


@dataclass(frozen=True, slots=True)
class Erased:
    """Who is to be forgotten. By then only the hashes tell which addresses the person had."""

    organization_id: str
    member_id: str
    alias_hashes: Collection[str]
    alias_secret: bytes

    def is_named_in(self, texts: Collection[str]) -> bool:
        """Whether one of the texts, or a word of one, is the member's id or an address."""
        candidates = {word for text in texts for word in (text, *WORD.findall(text))}
        return self.member_id in candidates or any(
            codec.alias_hash(self.alias_secret, one) in self.alias_hashes for one in candidates
        )


def erase_member(client: Any, person: Erased) -> int:
    """Erases names and addresses of a member from every table; blocks until it is done.

    Returns how many dead letters were emptied.
    """
    dimensions.erase_member(client, person.organization_id, person.member_id)
    client.command(
        "ALTER TABLE usage_rated_rows UPDATE subject = member_id "
        "WHERE organization_id = {organization:String} AND member_id = {member:String} "
        "AND subject != member_id SETTINGS mutations_sync = 2",
        parameters={"organization": person.organization_id, "member": person.member_id},
    )
    erase_rejects(client, person)
    return erase_dead_letters(client, person)


def erase_dead_letters(client: Any, person: Erased) -> int:
    """Empties what dead letters of the organization hold, where it names the person."""
    places: Offsets = defaultdict(list)
    letters = client.query(_LETTERS, parameters={"organization": person.organization_id})
    # A value too large for one record is split over several, and an address may be split with it.
    for _, parts in groupby(letters.result_rows, key=lambda row: row[4]):
        rows = list(parts)
        if person.is_named_in(list(_texts(rows))):
            for cluster, topic, partition, offset, *_ in rows:
                places[cluster, topic, partition].append(offset)
    return _empty(client, _EMPTY_LETTERS, places)


def erase_rejects(client: Any, person: Erased) -> int:
    """Empties the rows of the organization that ClickHouse refused, where they name the person."""
    places: Offsets = defaultdict(list)
    for cluster, topic, partition, offset, value in client.query(_REJECTS).result_rows:
        texts = list(_texts_of(b64decode(value)))
        if person.organization_id in texts and person.is_named_in(texts):
            places[cluster, topic, partition].append(offset)
    return _empty(client, _EMPTY_REJECTS, places)


def _empty(client: Any, statement: str, places: Offsets) -> int:
    """How many those were."""
    for (cluster, topic, partition), offsets in places.items():
        for start in range(0, len(offsets), OFFSETS_A_STATEMENT):
            client.command(
                statement,
                parameters={
                    "erased": ERASED,
                    "cluster": cluster,
                    "topic": topic,
                    "partition": partition,
                    "offsets": offsets[start : start + OFFSETS_A_STATEMENT],
                },
            )
    return sum(len(set(offsets)) for offsets in places.values())


def _texts(rows: list[Any]) -> Iterator[str]:
    yield from _texts_of(b"".join(b64decode(row[5]) for row in rows))
    for row in rows:
        yield from (b64decode(one).decode("utf-8", "replace") for one in row[6])
        yield from row[7:10]


def _texts_of(value: bytes) -> Iterator[str]:
    yield value.decode("utf-8", "replace")
    # Bytes that are no JSON are searched word by word.
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        for text in _strings(msgspec.json.decode(value)):
            yield text
            # The row of a dead letter has its bytes within.
            with suppress(ValueError, UnicodeDecodeError):
                yield b64decode(text, validate=True).decode()


def _strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, as it reads without escapes."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)

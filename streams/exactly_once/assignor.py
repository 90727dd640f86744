"""The same partition number of all topics goes to one worker, and stays where its disk is.

Faust's round robin would split a partition's usage from its facts. Each member claims the
partitions that it has a local store of; a claim is honoured up to an even share.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)


def share_out(partitions: int, claims: Mapping[str, set[int]]) -> dict[str, list[int]]:
    """Partition numbers for each member: even shares, claims first, the same for all who ask."""
    members = sorted(claims)
    floor, extra = divmod(partitions, len(members))
    shares: dict[str, list[int]] = {member: [] for member in members}
    free = []
    for number in range(partitions):
        claimants = [
            member for member in members if number in claims[member] and len(shares[member]) < floor
        ]
        if claimants:
            shares[min(claimants, key=lambda member: len(shares[member]))].append(number)
        else:
            free.append(number)
    for number in free:
        larger = sum(1 for share in shares.values() if len(share) > floor)
        fits = [
            member
            for member in members
            if len(shares[member]) < floor or (len(shares[member]) == floor and larger < extra)
        ]
        claimed = [member for member in fits if number in claims[member]]
        best = min(claimed or fits, key=lambda member: len(shares[member]))
        shares[best].append(number)
    return shares


class CoLocatedAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """aiokafka's assignor protocol around `share_out`; user data carries the claims."""

    name = "metering-co-located"
    version = 0

    def __init__(self, topics: Iterable[str], claims: Callable[[], Iterable[int]]) -> None:
        self._topics = tuple(topics)
        self._claims = claims

    def assign(self, cluster: ClusterMetadata, members: Mapping[str, Any]) -> dict[str, Any]:
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in self._topics}
        if len(set(counts.values())) != 1:
            raise RuntimeError(f"input topics must have the same number of partitions: {counts}")
        shares = share_out(
            next(iter(counts.values())),
            {member: _decode_claims(metadata.user_data) for member, metadata in members.items()},
        )
        return {
            member: ConsumerProtocolMemberAssignment(
                self.version, [(topic, sorted(numbers)) for topic in self._topics], b""
            )
            for member, numbers in shares.items()
        }

    def metadata(self, topics: Iterable[str]) -> Any:
        claims = json.dumps(sorted(self._claims())).encode()
        return ConsumerProtocolMemberMetadata(self.version, list(topics), claims)

    def on_assignment(self, assignment: Any) -> None:
        """Checks what was promised: every topic has the same partition numbers."""
        numbers = {topic: set(partitions) for topic, partitions in assignment.assignment}
        if any(numbers.get(topic) != numbers[self._topics[0]] for topic in self._topics):
            raise RuntimeError(f"assignment is not co-located: {numbers}")


def _decode_claims(raw: bytes) -> set[int]:
    try:
        return set(json.loads(raw or b"[]"))
    except ValueError:
        return set()

"""Shares are even, complete, keep to what a disk has, and do not depend on who computes them."""

from hypothesis import given
from hypothesis import strategies as st

from streams.exactly_once.assignor import share_out

CLAIMS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.sets(st.integers(0, 30)), min_size=1, max_size=6
)


@given(partitions=st.integers(1, 24), claims=CLAIMS)
def test_every_partition_once_in_even_shares(partitions: int, claims: dict[str, set[int]]) -> None:
    shares = share_out(partitions, claims)
    assert sorted(number for share in shares.values() for number in share) == list(
        range(partitions)
    )
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1
    assert shares == share_out(partitions, dict(reversed(claims.items())))


def test_members_keep_what_they_have() -> None:
    shares = share_out(8, {"a": {4, 5, 6, 7}, "b": {0, 1, 2, 3}})
    assert shares == {"a": [4, 5, 6, 7], "b": [0, 1, 2, 3]}


def test_a_third_member_takes_only_its_share() -> None:
    shares = share_out(9, {"a": {0, 1, 2, 3, 4}, "b": {5, 6, 7, 8}, "c": set()})
    assert len(set(shares["a"]) & {0, 1, 2, 3, 4}) == 3
    assert len(set(shares["b"]) & {5, 6, 7, 8}) == 3

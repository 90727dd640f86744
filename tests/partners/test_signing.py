"""Signatures both ways: what is taken, and everything that is not."""

from datetime import UTC, datetime, timedelta

import pytest

from api.payments.partners.signing import BadSignature, signed_headers, verify
from deploy.embedded.partner.process import new_secret

BODY = '{"type":"charge.refunded"}'
ONE, OTHER = new_secret(), new_secret()


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_what_is_signed_is_taken_and_named() -> None:
    headers = signed_headers(BODY, [ONE], message_id="msg_1")
    assert verify(BODY.encode(), raw(headers), [ONE]) == "msg_1"


@pytest.mark.parametrize(
    ("signed_by", "known"),
    [([ONE], [OTHER, ONE]), ([ONE, OTHER], [OTHER]), ([ONE, OTHER], [ONE])],
    ids=["ours renewed first", "theirs renewed first", "not renewed yet"],
)
def test_secrets_are_renewed_without_a_pause(signed_by: list[str], known: list[str]) -> None:
    assert verify(BODY.encode(), raw(signed_headers(BODY, signed_by)), known)


@pytest.mark.parametrize("seconds", [-290, 0, 290])
def test_five_minutes_are_allowed_to_both_sides(seconds: int) -> None:
    assert verify(BODY.encode(), raw(signed_headers(BODY, [ONE], at=ago(seconds))), [ONE])


@pytest.mark.parametrize(("seconds", "said"), [(310, "too old"), (-310, "too new")])
def test_more_is_refused_on_both_sides(seconds: int, said: str) -> None:
    with pytest.raises(BadSignature, match=said):
        verify(BODY.encode(), raw(signed_headers(BODY, [ONE], at=ago(seconds))), [ONE])


@pytest.mark.parametrize(
    ("body", "known"),
    [
        (BODY.encode() + b" ", [ONE]),
        (BODY.replace(":", ": ").encode(), [ONE]),
        (BODY.encode(), [OTHER]),
        (BODY.encode(), []),
        (b"\xff\xfe", [ONE]),
        (b"", [ONE]),
    ],
    ids=["one more byte", "the same JSON", "another secret", "no secret", "no text", "empty"],
)
def test_other_bytes_and_other_secrets_are_refused(body: bytes, known: list[str]) -> None:
    with pytest.raises(BadSignature):
        verify(body, raw(signed_headers(BODY, [ONE])), known)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "msg_2"),
        ("webhook-id", ""),
        ("webhook-id", "m" * 257),
        ("webhook-timestamp", "0"),
        ("webhook-timestamp", "nan"),
        ("webhook-timestamp", "1e9"),
        ("webhook-timestamp", "-5"),
        ("webhook-timestamp", "9" * 40),
        ("webhook-signature", ""),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,?"),
        ("webhook-signature", "v1,abc"),
        ("webhook-signature", "v1,a,b"),
        ("webhook-signature", "v2," + "A" * 43 + "="),
        ("webhook-signature", " ".join(["v1,AAAA"] * 9)),
        ("webhook-signature", "v1,\xe9"),
    ],
)
def test_headers_that_are_not_as_they_should_be_are_refused(name: str, value: str) -> None:
    with pytest.raises(BadSignature) as refused:
        verify(BODY.encode(), raw({**signed_headers(BODY, [ONE]), name: value}), [ONE])
    assert ONE not in str(refused.value)


def test_a_header_that_comes_twice_or_not_at_all_is_refused() -> None:
    headers = raw(signed_headers(BODY, [ONE]))
    for name, value in headers:
        with pytest.raises(BadSignature):
            verify(BODY.encode(), [*headers, (name.title(), value)], [ONE])
        with pytest.raises(BadSignature, match="is missing"):
            verify(BODY.encode(), [each for each in headers if each[0] != name], [ONE])


def test_a_signature_of_another_kind_beside_ours_is_no_matter() -> None:
    headers = signed_headers(BODY, [ONE])
    headers["webhook-signature"] = f"v1a,AAAA {headers['webhook-signature']}"
    assert verify(BODY.encode(), raw(headers), [ONE])

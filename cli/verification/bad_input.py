"""Records that must be refused: one maker for each way to be wrong, with the reason it must get.

Every value is unique (it carries a serial number), so that the verifier recognizes it by its bytes.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

from cli.verification.messages import Expected, Message
from schemas.headers import FORWARDED
from schemas.reasons import Reason
from schemas.topics import CREDITS, MEMBERSHIPS, USAGE, USAGE_VALUE_LIMIT_BYTES

LARGEST_BYTES: Final = 1_048_588 - 600
"""A value that just fits `max.message.bytes` of `usage`, with key and batch around it, and the
frames of a compression that finds nothing to compress."""
UNPACKED_BYTES: Final = 9 << 20
"""A value that the broker takes only because it is compressed; its dead letter comes in parts."""

_encode = msgspec.json.encode


class BadInput:
    """Makes bad records and books in `expected` what each must be refused for."""

    def __init__(self, random: Random, expected: Expected) -> None:
        self._random = random
        self._expected = expected
        self._serial = 0
        self._makers: list[Callable[[str, datetime], Message]] = [
            self._not_json,
            self._invalid_event,
            self._field,
            self._quantity,
            self._time,
            self._wrong_key,
            self._empty,
            self._too_large,
            self._forwarded_astray,
        ]

    def usage(self, organization_id: str, now: datetime) -> Message:
        return self._random.choice(self._makers)(organization_id, now)

    def largest(self, organization_id: str) -> list[Message]:
        """The largest that the broker takes: plain, and compressed. Each to be sent alone."""
        key = organization_id.encode()
        return [
            Message(USAGE, key, self._random.randbytes(LARGEST_BYTES - len(key))),
            Message(USAGE, key, b"%d" % self._next() + b"0" * UNPACKED_BYTES),
        ]

    def fact(self, organization_id: str) -> Message:
        """A record of a fact topic that is no fact; it has no version and consumes none."""
        topic, key = self._random.choice((MEMBERSHIPS, CREDITS)), organization_id.encode()
        number = self._next()
        times = {"recorded_at": "2026-01-01T00:00:00Z", "effective_at": "2026-01-01T00:00:00Z"}
        sent = {"organization_id": organization_id, "version": 10**6 + number, **times}
        match self._random.randrange(4):
            case 0:
                value, reason = b"{nothing %d" % number, Reason.INVALID_FACT
            case 1:
                value = _encode({**sent, "fact": {"type": f"unheard_of_{number}"}})
                reason = Reason.INVALID_FACT
            case 2:
                value = _encode({**sent, "version": -number, "fact": {"type": "group_created"}})
                reason = Reason.INVALID_FACT
            case _:
                return Message(topic, key, b"")
        self._expected[value] = reason
        return Message(topic, key, value)

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _event(self, organization_id: str, **changes: Any) -> dict[str, Any]:
        data = {"quantity": 1, **changes.pop("data", {})}
        return {
            "specversion": "1.0",
            "id": f"bad_{self._next()}",
            "source": "verification",
            "type": "ai.tokens",
            "subject": "user_4",
            "organizationid": organization_id,
            "data": data,
            **changes,
        }

    def _message(self, key: str, value: bytes, reason: Reason) -> Message:
        self._expected[value] = reason
        return Message(USAGE, key.encode(), value)

    def _not_json(self, organization_id: str, _now: datetime) -> Message:
        number = self._next()
        value = self._random.choice(
            (b"{%d" % number, b"\xff\xfe %d" % number, b'{"id": "x%d", ' % number)
        )
        return self._message(organization_id, value, Reason.NOT_JSON)

    def _invalid_event(self, organization_id: str, _now: datetime) -> Message:
        number = self._next()
        if self._random.random() < 0.3:
            return self._message(organization_id, b"[%d]" % number, Reason.INVALID_EVENT)
        changes: dict[str, Any] = self._random.choice(
            (
                {"specversion": "0.3"},
                {"subject": number},
                {"type": ""},
                {"source": None},
                {"subject": "nul\0"},
                {"data": {"dimensions": [1]}},
                {"data": {"website_id": 7}},
            )
        )
        value = _encode(self._event(organization_id, **changes))
        return self._message(organization_id, value, Reason.INVALID_EVENT)

    def _field(self, organization_id: str, _now: datetime) -> Message:
        if self._random.random() < 0.5:
            many = {f"d{each}": "x" for each in range(21)}
            value = _encode(self._event(organization_id, data={"dimensions": many}))
            return self._message(organization_id, value, Reason.TOO_MANY_DIMENSIONS)
        value = _encode(self._event(organization_id, source=f"{self._next():257d}"))
        return self._message(organization_id, value, Reason.ID_TOO_LONG)

    def _quantity(self, organization_id: str, _now: datetime) -> Message:
        quantity, reason = self._random.choice(
            (
                (1.5, Reason.FLOAT_QUANTITY),
                (1.0, Reason.FLOAT_QUANTITY),
                ("many", Reason.INVALID_QUANTITY),
                (True, Reason.INVALID_QUANTITY),
                ("0.1234567", Reason.INVALID_QUANTITY),
                (-1, Reason.NEGATIVE_QUANTITY),
                ("-2.5", Reason.NEGATIVE_QUANTITY),
                (10**13, Reason.QUANTITY_TOO_LARGE),
                ("9223372036854.775808", Reason.QUANTITY_TOO_LARGE),
            )
        )
        value = _encode(self._event(organization_id, data={"quantity": quantity}))
        return self._message(organization_id, value, reason)

    def _time(self, organization_id: str, now: datetime) -> Message:
        time, reason = self._random.choice(
            (
                ("yesterday", Reason.INVALID_TIME),
                ("2026-11-01T12:00:00", Reason.INVALID_TIME),
                (now - timedelta(days=36), Reason.TOO_OLD),
                (now + timedelta(hours=1), Reason.TOO_FAR_AHEAD),
            )
        )
        return self._message(
            organization_id, _encode(self._event(organization_id, time=time)), reason
        )

    def _wrong_key(self, organization_id: str, _now: datetime) -> Message:
        value = _encode(self._event(organization_id))
        return self._message(f"{organization_id}x", value, Reason.WRONG_KEY)

    def _empty(self, organization_id: str, _now: datetime) -> Message:
        return Message(USAGE, organization_id.encode(), self._random.choice((b"", None)))

    def _too_large(self, organization_id: str, _now: datetime) -> Message:
        event = self._event(organization_id, padding="x" * USAGE_VALUE_LIMIT_BYTES)
        return self._message(organization_id, _encode(event), Reason.TOO_LARGE)

    def _forwarded_astray(self, organization_id: str, _now: datetime) -> Message:
        """Says that it was forwarded. Where that is true, it is an ordinary event."""
        value = _encode(self._event(organization_id))
        headers = ((FORWARDED, b"3"),)
        return Message(USAGE, organization_id.encode(), value, headers, self._random.randrange(4))

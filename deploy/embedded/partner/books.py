"""What the reference partner does with charges and subscriptions, in the contract's shapes. Each
method is one transaction, so a `kill -9` leaves it done or not.
"""

import hashlib
import json
import secrets
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from deploy.embedded.partner.rows import Document, Refusal, Rows, text_of, time_of
from deploy.embedded.partner.shapes import ChargeRequest, Outcome, SubscriptionChange

PORTAL_LIFE: Final = timedelta(minutes=10)
CHARGES_SHOWN: Final = 100


def month_later(start: datetime, anchor_day: int) -> datetime:
    """The same time of the next month, on the anchor day or the month's last."""
    year, month = (start.year + 1, 1) if start.month == 12 else (start.year, start.month + 1)
    return start.replace(year=year, month=month, day=min(anchor_day, monthrange(year, month)[1]))


class Books(Rows):
    """Everything that is kept. Documents are in the contract's shapes."""

    # ---- the contract

    def charge(
        self, request: ChargeRequest, key: str, body: bytes, outcome: Outcome, message: str
    ) -> tuple[Document, bool]:
        """The one charge of a purchase, and whether it is new."""
        digest = hashlib.sha256(body).hexdigest()
        with self.change():
            former = self.row(
                "SELECT purchase_id, digest FROM purchases WHERE purchase_id = ? OR key = ?",
                request.purchase_id,
                key,
            )
            if former is not None:
                if former != (request.purchase_id, digest):
                    raise Refusal(
                        422, "idempotency_key_reused", "This key or purchase was charged otherwise."
                    )
                return self.charges_of(request.purchase_id)[-1], False
            self.database.execute(
                "INSERT INTO purchases VALUES (?, ?, ?, ?)",
                (request.purchase_id, key, digest, body.decode()),
            )
            return self._first_charge(request, outcome, message), True

    def _first_charge(self, request: ChargeRequest, outcome: Outcome, message: str) -> Document:
        now = self.now()
        subscription_id = f"psub_{secrets.token_hex(8)}" if request.kind == "monthly" else None
        charge: Document = {
            "charge_id": f"pch_{secrets.token_hex(8)}",
            "purchase_id": request.purchase_id,
            "organization_id": request.organization_id,
            "status": outcome,
            "packages": request.packages,
            "amount_minor": request.amount_minor,
            "currency": request.currency,
            "created_at": text_of(now),
            "paid_at": text_of(now) if outcome == "succeeded" else None,
            "refunded_minor": 0,
            "message": message,
            "subscription_id": subscription_id,
        }
        if subscription_id is not None:
            end = month_later(now, now.day)
            charge |= {"period_start": text_of(now), "period_end": text_of(end)}
            self._save_subscription(
                {
                    "subscription_id": subscription_id,
                    "purchase_id": request.purchase_id,
                    "status": {"succeeded": "active", "pending": "past_due"}.get(
                        outcome, "canceled"
                    ),
                    "current_period_start": text_of(now),
                    "current_period_end": text_of(end),
                    "cancel_at_period_end": False,
                    "canceled_at": text_of(now) if outcome == "declined" else None,
                }
            )
        return self._save_charge(charge)

    def purchase(self, purchase_id: str) -> Document:
        requests = self.documents(
            "SELECT request FROM purchases WHERE purchase_id = ?", purchase_id
        )
        if not requests:
            raise Refusal(404, "not_found", "There is no such purchase.")
        return {
            "purchase_id": purchase_id,
            "charges": self.charges_of(purchase_id)[:CHARGES_SHOWN],
            "subscription": self.subscription_of(purchase_id),
            "request": requests[0],
        }

    def charges_of(self, purchase_id: str) -> list[Document]:
        """Newest first."""
        return self.documents(
            "SELECT document FROM charges WHERE purchase_id = ? ORDER BY number DESC", purchase_id
        )

    def subscription_of(self, purchase_id: str) -> Document | None:
        found = self.documents(
            "SELECT document FROM subscriptions WHERE purchase_id = ?", purchase_id
        )
        return found[0] if found else None

    def changed_since(self, since: datetime, after: str, limit: int) -> list[Document]:
        """By time of change and id, from `since` on and behind `after` (`time id`)."""
        changed_at, _, charge_id = after.partition(" ")
        return self.documents(
            "SELECT document FROM charges WHERE updated_at >= ? AND (updated_at, charge_id) > "
            "(?, ?) ORDER BY updated_at, charge_id LIMIT ?",
            text_of(since),
            changed_at,
            charge_id,
            limit,
        )

    def change_subscription(self, change: SubscriptionChange) -> Document:
        """Cancels (now or at the end of the period) or resumes; again changes nothing."""
        with self.change():
            subscription = self.subscription(change.subscription_id)
            if subscription["purchase_id"] != change.purchase_id:
                raise Refusal(404, "not_found", "There is no such subscription.")
            if change.action == "cancel" and not change.at_period_end:
                return self._end(subscription)
            if subscription["status"] == "canceled":
                if change.action == "cancel":
                    return subscription
                raise Refusal(422, "unsupported", "The subscription has ended; buy a new one.")
            wanted = change.action == "cancel"
            if subscription["cancel_at_period_end"] != wanted:
                subscription["cancel_at_period_end"] = wanted
                self._save_subscription(subscription)
                self._touch_newest(subscription)
                self._tell("subscription.updated", subscription)
            return subscription

    # ---- what a test, or a person at the portal, lets happen

    def finish(self, charge_id: str, outcome: Outcome) -> Document:
        """A pending charge goes through, or does not."""
        with self.change():
            charge = self.one_charge(charge_id)
            if charge["status"] != "pending":
                raise Refusal(409, "not_pending", "The charge is not pending.")
            charge["status"] = outcome
            charge["paid_at"] = text_of(self.now()) if outcome == "succeeded" else None
            subscription = self.subscription_of(charge["purchase_id"])
            if subscription is not None and outcome == "succeeded":
                self._save_subscription({**subscription, "status": "active"})
            elif subscription is not None and len(self.charges_of(charge["purchase_id"])) == 1:
                self._save_subscription(
                    {**subscription, "status": "canceled", "canceled_at": text_of(self.now())}
                )
            self._save_charge(charge)
            self._tell(f"charge.{outcome}", charge)
            return charge

    def refund(self, charge_id: str, amount_minor: int | None) -> Document:
        with self.change():
            charge = self.one_charge(charge_id)
            left = charge["amount_minor"] - charge["refunded_minor"]
            amount = left if amount_minor is None else amount_minor
            if charge["status"] != "succeeded" or not 0 < amount <= left:
                raise Refusal(409, "not_refundable", f"Only {left} can be refunded.")
            charge["refunded_minor"] += amount
            self._save_charge(charge)
            self._tell("charge.refunded", charge, refunded_minor=charge["refunded_minor"])
            return charge

    def renew(self, subscription_id: str, outcome: Outcome) -> Document:
        """The next period begins where the last one ends, whatever the clock says."""
        with self.change():
            subscription = self.subscription(subscription_id)
            if subscription["status"] == "canceled":
                raise Refusal(409, "canceled", "The subscription has ended.")
            if subscription["cancel_at_period_end"]:
                return self._end(subscription)
            former = self.charges_of(subscription["purchase_id"])[0]
            start = time_of(subscription["current_period_end"])
            first = self.charges_of(subscription["purchase_id"])[-1]
            end = month_later(start, time_of(first["created_at"]).day)
            charge = {
                **former,
                "charge_id": f"pch_{secrets.token_hex(8)}",
                "status": outcome,
                "created_at": text_of(self.now()),
                "paid_at": text_of(self.now()) if outcome == "succeeded" else None,
                "refunded_minor": 0,
                "message": "" if outcome != "declined" else "The card was declined.",
                "period_start": text_of(start),
                "period_end": text_of(end),
            }
            subscription["status"] = "past_due" if outcome == "declined" else "active"
            if outcome == "succeeded":
                subscription["current_period_start"] = text_of(start)
                subscription["current_period_end"] = text_of(end)
            self._save_subscription(subscription)
            self._save_charge(charge)
            event = {"succeeded": "subscription.renewed", "declined": "charge.declined"}
            self._tell(event.get(outcome, "subscription.updated"), charge)
            return charge

    def _end(self, subscription: Document) -> Document:
        if subscription["status"] != "canceled":
            subscription |= {"status": "canceled", "canceled_at": text_of(self.now())}
            self._save_subscription(subscription)
            self._touch_newest(subscription)
            self._tell("subscription.canceled", subscription)
        return subscription

    # ---- the portal

    def open_portal(self, organization: str, pool_kind: str, pool: str) -> tuple[str, datetime]:
        token, expires_at = secrets.token_urlsafe(24), datetime.now(UTC) + PORTAL_LIFE
        self.database.execute(
            "INSERT INTO portals VALUES (?, ?, ?, ?, ?)",
            (token, organization, pool_kind, pool, text_of(expires_at)),
        )
        return token, expires_at

    def portal(self, token: str) -> list[Document]:
        """The purchases that this customer may see, newest first."""
        row = self.row(
            "SELECT organization, pool_kind, pool, expires_at FROM portals WHERE token = ?", token
        )
        if row is None or time_of(row[3]) <= datetime.now(UTC):
            raise Refusal(404, "not_found", "This link has expired.")
        requests = self.documents("SELECT request FROM purchases ORDER BY rowid DESC")
        return [
            {"request": request, **self.purchase(request["purchase_id"])}
            for request in requests
            if (request["organization_id"], request["pool_kind"], request["pool_id"]) == row[:3]
        ]

    def _tell(self, kind: str, about: Document, **more: Any) -> None:
        purchase = self.charges_of(about["purchase_id"])[0]
        fields = {
            "purchase_id": about["purchase_id"],
            "organization_id": purchase["organization_id"],
            "charge_id": about.get("charge_id"),
            "subscription_id": about.get("subscription_id"),
            **more,
        }
        data = {name: value for name, value in fields.items() if value is not None}
        self.add_webhook(kind, data)

    def subscription(self, subscription_id: str) -> Document:
        found = self.documents(
            "SELECT document FROM subscriptions WHERE subscription_id = ?", subscription_id
        )
        if not found:
            raise Refusal(404, "not_found", "There is no such subscription.")
        return found[0]

    def one_charge(self, charge_id: str) -> Document:
        found = self.documents("SELECT document FROM charges WHERE charge_id = ?", charge_id)
        if not found:
            raise Refusal(404, "not_found", "There is no such charge.")
        return found[0]

    def _save_charge(self, charge: Document) -> Document:
        charge["updated_at"] = self._changed_at()
        known = self.row("SELECT number FROM charges WHERE charge_id = ?", charge["charge_id"])
        count = self.database.execute("SELECT count(*) FROM charges").fetchone()[0]
        number = known[0] if known else count + 1
        charge["invoice_number"] = f"REF-{number:06d}"
        self.database.execute(
            "REPLACE INTO charges VALUES (?, ?, ?, ?, ?)",
            (
                charge["charge_id"],
                charge["purchase_id"],
                number,
                charge["updated_at"],
                json.dumps(charge),
            ),
        )
        return charge

    def _touch_newest(self, subscription: Document) -> None:
        """A change of a subscription shows at its newest charge, so that reconciliation sees it."""
        self._save_charge(self.charges_of(subscription["purchase_id"])[0])

    def _changed_at(self) -> str:
        """Never before a former change, so that whoever has read up to one misses none."""
        newest = self.database.execute("SELECT max(updated_at) FROM charges").fetchone()[0] or ""
        return max(text_of(self.now()), newest)

    def _save_subscription(self, subscription: Document) -> None:
        self.database.execute(
            "REPLACE INTO subscriptions VALUES (?, ?, ?)",
            (
                subscription["subscription_id"],
                subscription["purchase_id"],
                json.dumps(subscription),
            ),
        )

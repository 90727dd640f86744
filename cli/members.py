"""`metering erase-member`: a person's names and addresses out of both databases."""

from typing import TYPE_CHECKING

from cli.errors import Failure

if TYPE_CHECKING:
    from api.rules.change import Control
    from schemas.settings import Settings


def erase_member(settings: "Settings", organization_id: str, member_id: str) -> str:
    """Erases and says what was done. ClickHouse is told at once where it answers, else by the
    API's outbox. Raises Failure where there is no such member."""
    from api.errors import Refused
    from api.outbox.names import write_round
    from api.rules.erasure import erase_member as erase
    from cli.control import opened, operator
    from warehouse.connection import WarehouseError, connect

    with opened(settings) as control:
        try:
            client = connect(settings)
        except WarehouseError:
            client = None
        try:
            letters = _erase_letters(control, client, organization_id, member_id) if client else 0
            with control.change(organization_id, operator()) as change:
                erase(change, member_id)
            while client and write_round(control.store, client, control.alias_secret):
                pass
        except Refused as refused:
            raise Failure(refused.message) from refused
        finally:
            if client:
                client.close()
    if client is None:
        sentence = f"{member_id} is erased; ClickHouse is away and forgets as soon as it is back."
    else:
        sentence = (
            f"{member_id} is erased from the control plane and from ClickHouse. "
            f"The bytes of {letters} dead letters were emptied there."
        )
    return f"{sentence} {what_kafka_keeps()}"


def _erase_letters(control: "Control", client: object, organization_id: str, member_id: str) -> int:
    """First, since they are to be counted: once the change is committed, the outbox of a running
    API erases them as well. Nothing happens for somebody who is no member."""
    from api.outbox.names import erased_person
    from api.storage.models import Member
    from warehouse.erasure import erase_dead_letters

    with control.store.read() as session:
        if session.get(Member, (organization_id, member_id)) is None:
            return 0
        person = erased_person(session, organization_id, member_id, control.alias_secret)
    return erase_dead_letters(client, person)


def what_kafka_keeps() -> str:
    """What no command can take out of a topic, and how long it stays there."""
    from schemas import topics

    retentions = ", ".join(
        f"`{name}` {topics.all_topics()[name].retention_days} days"
        for name in (topics.USAGE, topics.USAGE_RATED, topics.DEAD_LETTERS)
    )
    return (
        f"Kafka keeps what was sent under an address until its retention ends ({retentions}, if "
        "not configured otherwise); `metering dead-letters` shows it until then."
    )

"""`metering erase-member`: a person's names and addresses out of both databases."""

from typing import TYPE_CHECKING

from cli.errors import Failure

if TYPE_CHECKING:
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
            with control.change(organization_id, operator()) as change:
                erase(change, member_id)
        except Refused as refused:
            raise Failure(refused.message) from refused
        try:
            client = connect(settings)
        except WarehouseError:
            return f"{member_id} is erased; ClickHouse is away and forgets as soon as it is back."
        try:
            while write_round(control.store, client):
                pass
        finally:
            client.close()
    return f"{member_id} is erased from the control plane and from ClickHouse."

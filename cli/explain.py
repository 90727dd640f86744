"""`metering explain`: why an event cost what it cost, in prose, with the numbers under it."""

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from cli.command_line import Commands, OrganizationOption
from cli.configuration import load_settings
from cli.errors import Failure
from cli.tables import number, table, text
from schemas.records import UNASSIGNED
from warehouse.amounts import micro_text, pico_text
from warehouse.connection import connect
from warehouse.explanations import (
    EventExplained,
    Explanation,
    FactSeen,
    GrantSeen,
    Row,
    allocations_of,
    explain_event,
)

app = Commands("Why an event cost what it cost.", no_args_is_help=False)

HOW: Final = {
    "scim": "by the identity provider (SCIM)",
    "api": "through the API",
    "csv": "by a CSV upload",
    "manual": "by hand",
}
RESOLVED: Final = {
    "member": "its member id",
    "alias": "an alias",
    "unknown": "nothing known: metered under Unassigned",
}


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


@app.command()
def explain(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID")],
    organization: OrganizationOption,
    source: Annotated[str, typer.Option(help="Needed only when sources share the id.")] = "",
    format_: Annotated[Format, typer.Option("--format")] = Format.TEXT,
) -> None:
    """Why an event cost what it cost: group, price, who paid, and where it lies in Kafka."""
    client = connect(load_settings())
    try:
        explanation = explain_event(client, organization, event_id, source)
    finally:
        client.close()
    if not explanation.events and not explanation.dead_letters:
        raise Failure(
            f"event {event_id!r} of organization {organization!r} is neither rated nor a dead "
            "letter: it has not arrived, is still on its way (seconds), or has another id"
        )
    typer.echo(render(explanation, format_.value), nl=False)


def render(explanation: Explanation, format_: str) -> str:
    """The explanation as text that ends with a newline."""
    if format_ == "json":
        return (
            json.dumps(_as_json(explanation), indent=2, ensure_ascii=False, default=_plain) + "\n"
        )
    parts = [_event_text(each) for each in explanation.events]
    parts += [_dead_letter_text(letter) for letter in explanation.dead_letters]
    return "\n\n".join(parts) + "\n"


def _event_text(explained: EventExplained) -> str:
    event = explained.event
    website = f" for website {event['website_id']}" if event["website_id"] else ""
    lines = [
        f"Event {event['event_id']} from {event['source'] or '(no source)'}, "
        f"{_time(event['event_time'])}",
        "",
        f"{micro_text(event['quantity_micro'])} units of {event['meter']}{website}, "
        f"used by {event['member_id']}, found by {RESOLVED[event['resolved_by']]}"
        + (f" ({event['subject']})." if event["subject"] != event["member_id"] else "."),
        _group_sentence(explained),
        _price_sentence(explained),
        _funding_sentence(event),
        "",
        *_payment_table(event),
        "",
        *(_grant_sentence(grant) for grant in explained.grants),
        *_balance_sentences(event),
        *_correction_sentences(explained.corrections),
        f"In Kafka: {event['input_topic']}, partition {event['input_partition']}, offset "
        f"{event['input_offset']}, appended {_time(event['appended_at'])}; "
        f"rated {_time(event['recorded_at'])}.",
    ]
    return "\n".join(lines)


def _group_sentence(explained: EventExplained) -> str:
    event, stamped = explained.event, explained.event["stamped_group_id"]
    fact = explained.facts.get(event["membership_version"])
    if stamped == UNASSIGNED:
        sentence = "Group: Unassigned, " + (
            f"by membership fact {fact.version} ({_fact(fact)})."
            if fact
            else "because no membership fact covered that time."
        )
    elif fact:
        sentence = f"Group: {stamped}, by membership fact {fact.version} ({_fact(fact)})."
    else:
        sentence = f"Group: {stamped}, by membership fact {event['membership_version']}."
    reported_id, reported_name = explained.reported_group
    if reported_id != stamped:
        sentence += " That group was deleted since, so reports show it under Unassigned."
    elif reported_name not in ("", stamped, "Unassigned"):
        sentence += f" It is called {reported_name}."
    if explained.known_now_group[0] != reported_id:
        known_now = explained.known_now_group[1]
        sentence += f" By all facts known now it would be {known_now}: a fact arrived later."
    return sentence


def _fact(fact: FactSeen) -> str:
    how = HOW.get(fact.how, fact.how)
    return (
        f"{fact.type.replace('_', ' ')}{f' {how}' if how else ''}, effective "
        f"{_time(fact.effective_at)}, recorded {_time(fact.recorded_at)}"
    )


def _price_sentence(explained: EventExplained) -> str:
    event = explained.event
    fact = explained.facts.get(event["price_version"])
    since = f", effective {_time(fact.effective_at)}" if fact else ""
    return (
        f"Price: {micro_text(event['price_micro'])} credits per million units (fact "
        f"{event['price_version']}{since}), so it cost {micro_text(event['cost_micro'])} credits; "
        f"a credit is {micro_text(event['credit_price_micro'])} {event['currency']} (settings of "
        f"fact {event['settings_version']}), so that is {_money(event)}."
    )


def _funding_sentence(event: Row) -> str:
    if not event["cost_micro"]:
        return "Nothing was to be paid."
    pools = [f"website {event['website_id']}"] if event["website_id"] else []
    if event["funding_group_id"]:
        pools.append(f"group {event['funding_group_id']}")
    if not pools:
        return "No pool was to be asked, so all of it is overage."
    return f"Asked to pay, in this order: {', then '.join(pools)}."


def _payment_table(event: Row) -> list[str]:
    rows = [
        [
            f"{allocation['pool']} pool, grant {allocation['grant_id']}",
            micro_text(allocation["amount_micro"]),
        ]
        for allocation in allocations_of(event)
    ]
    rows.append(["overage (no credits were left)", micro_text(event["overage_micro"])])
    cost = ["Cost", micro_text(event["cost_micro"])]
    return table([text("Paid by"), number("Credits")], rows, total=cost)


def _grant_sentence(grant: GrantSeen) -> str:
    kind = "monthly" if grant.kind == "monthly" else "one-time"
    until = f" until {_time(grant.expires_at)}" if grant.expires_at else ""
    return (
        f"Grant {grant.grant_id}: {kind} credits from {grant.source}, valid from "
        f"{_time(grant.effective_at)}{until} (credits fact {grant.version})."
    )


def _balance_sentences(event: Row) -> list[str]:
    sentences = []
    if event["website_id"]:
        sentences.append(f"website {micro_text(event['website_balance_micro'])}")
    if event["funding_group_id"]:
        sentences.append(f"group {micro_text(event['group_balance_micro'])}")
    if not sentences:
        return []
    return [f"Balances after it, with what begins later: {', '.join(sentences)} credits."]


def _correction_sentences(corrections: tuple[Row, ...]) -> list[str]:
    return [
        f"Corrected by fact {row['revision']}: cost {micro_text(row['cost_micro'])}, website "
        f"{micro_text(row['website_debit_micro'])}, group {micro_text(row['group_debit_micro'])}, "
        f"overage {micro_text(row['overage_micro'])} credits (group {row['stamped_group_id']})."
        for row in corrections
    ]


def _dead_letter_text(letter: Row) -> str:
    return "\n".join(
        [
            f"Event {letter['event_id']} was refused: {letter['reason']}.",
            letter["detail"],
            f"In Kafka: {letter['input_topic']}, partition {letter['input_partition']}, offset "
            f"{letter['input_offset']}; its dead letter: {letter['topic']}, partition "
            f"{letter['partition']}, offset {letter['offset']} "
            "(see `metering dead-letters show`).",
        ]
    )


def _as_json(explanation: Explanation) -> dict[str, Any]:
    return {
        "events": [
            {
                "event": _row_as_json(each.event),
                "corrections": [_row_as_json(row) for row in each.corrections],
                "facts": [
                    {name: getattr(fact, name) for name in FactSeen.__slots__}
                    for _version, fact in sorted(each.facts.items())
                ],
                "grants": [
                    {name: getattr(grant, name) for name in GrantSeen.__slots__}
                    for grant in each.grants
                ],
                "reported_group": dict(zip(("id", "name"), each.reported_group, strict=True)),
                "known_now_group": dict(zip(("id", "name"), each.known_now_group, strict=True)),
                "money": {each.event["currency"]: _money(each.event).partition(" ")[0]},
            }
            for each in explanation.events
        ],
        "dead_letters": list(explanation.dead_letters),
    }


def _row_as_json(row: Row) -> Row:
    return {**row, "allocations": allocations_of(row)}


def _money(event: Row) -> str:
    return f"{pico_text(event['cost_micro'] * event['credit_price_micro'])} {event['currency']}"


def _time(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(sep=" ") + " UTC"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)

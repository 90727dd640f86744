"""Every alert fires for what it is named after, and not when all is well: by promtool."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.embedded.child import PROJECT_ROOT

RULES = PROJECT_ROOT / "deploy" / "prometheus" / "alerts.yml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing (Debian: the package prometheus)"
)


@dataclass(frozen=True)
class Case:
    """Series by minute, in promtool's notation, and what they are when all is well."""

    bad: dict[str, str]
    good: dict[str, str]
    minute: int = 30


def _up(job: str) -> Case:
    return Case({f'up{{job="{job}",instance="a"}}': "1x10 0x40"}, {f'up{{job="{job}"}}': "1x50"})


def _grows(name: str, labels: str = "") -> Case:
    series = f"{name}{{{labels}}}"
    return Case({series: "0x20 1+1x40"}, {series: "7x60"})


LAG = 'metering_lag_records{instance="a",topic="usage",partition="0"}'
SINK_LAG = 'metering_sink_lag_records{instance="a",topic="usage-rated",partition="0"}'
COMMIT = 'metering_last_commit_timestamp_seconds{instance="a"}'
SINK_COMMIT = 'metering_sink_last_commit_timestamp_seconds{instance="a"}'
RATED = 'metering_rated_events_total{instance="w"}'
STORED = 'metering_sink_rows_total{instance="a",table="usage_rated"}'
EACH_MINUTE = "0+60x60"

CASES = {
    "WorkerDown": _up("worker"),
    "SinkDown": _up("sink"),
    "ApiDown": _up("api"),
    "WorkerWaitsForKafka": Case(
        {'metering_worker_dependency_up{dependency="kafka"}': "1x20 0x40"},
        {'metering_worker_dependency_up{dependency="kafka"}': "1x20 0 1x40"},
    ),
    "SinkWaits": Case(
        {'metering_sink_dependency_up{dependency="clickhouse"}': "1x20 0x40"},
        {'metering_sink_dependency_up{dependency="clickhouse"}': "1x20 0 1x40"},
    ),
    "SinkStoresNothing": Case(
        {SINK_LAG: "0x10 5x50", SINK_COMMIT: "600x60"},
        {SINK_LAG: "5x60", SINK_COMMIT: EACH_MINUTE},
    ),
    "UsageNotCommitted": Case(
        {"metering_oldest_uncommitted_age_seconds": "0x20 0+60x40"},
        {"metering_oldest_uncommitted_age_seconds": "90x60"},
    ),
    "NothingCommittedWhileUsageWaits": Case(
        {LAG: "0x10 5x50", COMMIT: "600x60"}, {LAG: "5x60", COMMIT: EACH_MINUTE}
    ),
    "DeadLetters": _grows("metering_dead_letters_total", 'reason="no_price"'),
    "FactsStopped": _grows("metering_dead_letters_total", 'reason="version_gap"'),
    "InternalErrors": _grows("metering_internal_errors_total"),
    "UnknownMembers": Case(
        {
            "metering_unknown_member_events_total": "0+10x90",
            "metering_rated_events_total": "0+90x90",
        },
        {
            "metering_unknown_member_events_total": "0+1x90",
            "metering_rated_events_total": "0+90x90",
        },
        minute=80,
    ),
    "ManyDuplicates": Case(
        {"metering_duplicate_events_total": "0+60x90", "metering_events_total": "0+90x90"},
        {"metering_duplicate_events_total": "0+30x90", "metering_events_total": "0+90x90"},
        minute=80,
    ),
    "MisroutedUsage": _grows("metering_misrouted_events_total"),
    "SinkRejectedRows": Case(
        {'metering_sink_rejected_rows_total{table="ledger"}': "_x20 1x40"},
        {'metering_sink_rejected_rows_total{table="ledger"}': "0x60"},
    ),
    "ChangesRefused": Case(
        {"metering_outbox_halted": "0x20 1x40"}, {"metering_outbox_halted": "0x60"}
    ),
    "UnknownOrganizationInTopic": Case(
        {"metering_outbox_unknown_organizations": "0x20 1x40"},
        {"metering_outbox_unknown_organizations": "0x60"},
    ),
    "KeysExpire": Case(
        {"metering_api_keys_expiring": "0x20 1x40"}, {"metering_api_keys_expiring": "0x60"}
    ),
    "FactsNotPublished": Case(
        {"metering_outbox_oldest_waiting_seconds": "0x20 0+60x40"},
        {"metering_outbox_oldest_waiting_seconds": "5x60"},
    ),
    "FactsPublishedLate": Case(
        {
            'metering_outbox_delay_seconds_bucket{le="5"}': "0x60",
            'metering_outbox_delay_seconds_bucket{le="15"}': EACH_MINUTE,
            'metering_outbox_delay_seconds_bucket{le="+Inf"}': EACH_MINUTE,
        },
        {
            'metering_outbox_delay_seconds_bucket{le="0.1"}': EACH_MINUTE,
            'metering_outbox_delay_seconds_bucket{le="+Inf"}': EACH_MINUTE,
        },
    ),
    "PartnerUnclear": Case(
        {"metering_partner_oldest_unclear_seconds": "0x10 0+60x50"},
        {"metering_partner_oldest_unclear_seconds": "0x10 0+60x14 0x40"},
        minute=40,
    ),
    "PartnerRefusesRequests": _grows(
        "metering_partner_requests_total", 'partner="a",operation="charge",outcome="refused"'
    ),
    "PartnerWebhooksWait": Case(
        {"metering_partner_oldest_pending_seconds": "0x10 0+60x50"},
        {"metering_partner_oldest_pending_seconds": "0x10 0+60x4 0x50"},
    ),
    "PartnerWebhooksForged": Case(
        {'metering_partner_webhooks_total{partner="a",outcome="forged"}': "0x20 0+10x40"},
        {'metering_partner_webhooks_total{partner="a",outcome="forged"}': "0x20 1x40"},
    ),
    "PartnerNotReconciled": Case(
        {'metering_partner_last_reconciled_timestamp_seconds{partner="a"}': "0x2400"},
        {'metering_partner_last_reconciled_timestamp_seconds{partner="a"}': "0+60x2400"},
        minute=2300,
    ),
    "PaymentsUnmatched": Case(
        {"metering_payments_unmatched": "0x20 1x40"}, {"metering_payments_unmatched": "0x60"}
    ),
    "StripeWebhooksWait": Case(
        {"metering_stripe_oldest_pending_seconds": "0x10 0+60x50"},
        {"metering_stripe_oldest_pending_seconds": "0x10 0+60x4 0x50"},
    ),
    "StripeRefusesTheKey": _grows(
        "metering_stripe_requests_total", 'operation="session.create",outcome="unauthorized"'
    ),
    "StripeLooksFail": Case(
        {"metering_stripe_events_failed_total": "0+2x90"},
        {"metering_stripe_events_failed_total": "0x30 5x60"},
        minute=80,
    ),
    "StripeWebhooksRefused": Case(
        {'metering_stripe_webhooks_total{outcome="wrong_signature"}': "0x10 0+10x50"},
        {'metering_stripe_webhooks_total{outcome="stored"}': "0+10x60"},
    ),
    "StripeNotReconciled": Case(
        {"metering_stripe_last_reconciled_timestamp_seconds": "60x2400"},
        {"metering_stripe_last_reconciled_timestamp_seconds": "0x2400"},
        minute=2300,
    ),
    "NamesNotWritten": Case(
        {"metering_names_waiting": "3x60"}, {"metering_names_waiting": "3x10 0x50"}
    ),
}


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_has_a_case_and_a_name_of_its_own() -> None:
    assert sorted(rule["alert"] for rule in _rules()) == sorted(CASES)


@needs_promtool
def test_the_rules_are_well_formed() -> None:
    _promtool("check", "rules", str(RULES))


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_it_fires_for_what_it_is_named_after(alert: str, tmp_path: Path) -> None:
    case = CASES[alert]
    _check(tmp_path, alert, case.bad, case.minute, fires=True)
    _check(tmp_path, alert, case.good, case.minute, fires=False)


@needs_promtool
def test_a_sink_that_never_hears_of_its_partitions_stores_nothing_either(tmp_path: Path) -> None:
    """It tells no lag; what the workers rate tells."""
    _check(tmp_path, "SinkStoresNothing", {RATED: EACH_MINUTE}, 30, fires=True)
    both = {RATED: EACH_MINUTE, STORED: EACH_MINUTE}
    _check(tmp_path, "SinkStoresNothing", both, 30, fires=False)


def _check(tmp_path: Path, alert: str, series: dict[str, str], minute: int, fires: bool) -> None:
    firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name.replace("{}", ""), "values": values}
                    for name, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": firing,
                        "eval_time": f"{minute}m",
                        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                    }
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    _promtool("test", "rules", str(file))


def _promtool(*arguments: str) -> None:
    outcome = subprocess.run(
        [str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr

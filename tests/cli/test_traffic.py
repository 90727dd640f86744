"""The demo's live usage: lively while somebody looks, seldom on a machine that is left alone."""

from cli.up.traffic import LIVELY_S, pause_s


def test_live_usage_comes_seldom_after_a_while() -> None:
    assert pause_s(0) == pause_s(LIVELY_S - 1) == 1.0
    assert pause_s(LIVELY_S) == pause_s(86_400) == 15.0

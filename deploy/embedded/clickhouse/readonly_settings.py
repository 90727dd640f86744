"""Settings that a read-only user may change: how results look, and limits downwards.

Clients send settings of their own with every statement, so what is harmless is accepted, and so is
any setting with the value that it has anyway, as a server with `readonly` does. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from deploy.embedded.clickhouse.allowed import allowed
from deploy.embedded.clickhouse.errors import readonly_refusal, refusal

_HARMLESS: Final = allowed("settings")
HARMLESS: Final = frozenset(name for name in _HARMLESS if not name.endswith("*"))
HARMLESS_PREFIXES: Final = tuple(name[:-1] for name in _HARMLESS - HARMLESS)
BLOCK_ROWS_MAX: Final = 1_048_576
# The embedded engine allows these by default.
SWITCHED_OFF: Final = {"allow_introspection_functions": "0", "allow_ddl": "0"}


@dataclass(frozen=True, slots=True)
class ReaderLimits:
    """What one statement of a read-only user may take."""

    seconds: int = 60
    memory_bytes: int = 1024**3
    threads: int = 1
    threads_at_most: int = 2
    spilled_bytes: int = 4 * 1024**3

    @property
    def settings(self) -> Mapping[str, str]:
        """As the engine is told before each statement."""
        return {
            "max_execution_time": str(self.seconds),
            "max_memory_usage": str(self.memory_bytes),
            "max_threads": str(self.threads),
            "max_temporary_data_on_disk_size_for_query": str(self.spilled_bytes),
            **SWITCHED_OFF,
        }

    @property
    def at_most(self) -> Mapping[str, int]:
        """What a statement may ask for itself; 0, the engine's word for unlimited, is refused."""
        bounds = {
            name: int(value) for name, value in self.settings.items() if name not in SWITCHED_OFF
        }
        return bounds | {"max_block_size": BLOCK_ROWS_MAX, "max_threads": self.threads_at_most}


def check_reader_setting(
    name: str, value: str, limits: ReaderLimits, current: Mapping[str, str]
) -> None:
    """Refuse a change that could do more than change how the reader's own results look.

    `current` are the values that hold without the change.
    """
    if _plain(value) == _plain(current.get(name, "")):
        return
    bound = limits.at_most.get(name)
    if bound is not None:
        _check_bound(name, value, bound)
    elif name not in HARMLESS and not name.startswith(HARMLESS_PREFIXES):
        raise readonly_refusal(f"Cannot modify '{name}' setting in readonly mode.")


def _check_bound(name: str, value: str, bound: int) -> None:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= bound:
        raise refusal(452, f"Setting {name} should be between 1 and {bound}.")


def _plain(value: str) -> str:
    return {"true": "1", "false": "0"}.get(value.lower(), value)

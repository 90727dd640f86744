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
# Of a result in one piece: its values, its text, and what names of our own columns take in a row.
RESULT_BYTES: Final = 256 * 1024**2
RESULT_TEXT_BYTES: Final = 1024**3
NAMES_BYTES: Final = 2048
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

    def result(self, statement_characters: int) -> Mapping[str, int]:
        """How large a result may be that is answered in one piece.

        The engine does not count what it writes results into, and many formats repeat the names of
        columns in every row; a name can be as long as the statement.
        """
        row_bytes = NAMES_BYTES + 2 * statement_characters
        return {
            "max_result_rows": max(1, RESULT_TEXT_BYTES // row_bytes),
            "max_result_bytes": RESULT_BYTES,
        }

    @property
    def at_most(self) -> Mapping[str, int]:
        """What a statement may ask for itself; 0, the engine's word for unlimited, is refused."""
        bounds = {
            name: int(value) for name, value in self.settings.items() if name not in SWITCHED_OFF
        }
        return bounds | {"max_block_size": BLOCK_ROWS_MAX, "max_threads": self.threads_at_most}


def check_reader_setting(
    name: str,
    value: str,
    limits: ReaderLimits,
    current: Mapping[str, str],
    statement_characters: int = 0,
) -> None:
    """Refuse a change that could do more than change how the reader's own results look.

    `current` are the values that hold without the change; the length is that of the statement
    with the change in it.
    """
    if _plain(value) == _plain(current.get(name, "")):
        return
    bound = {**limits.at_most, **limits.result(statement_characters)}.get(name)
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

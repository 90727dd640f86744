"""What was found to differ, counted, with the first few in words."""

from dataclasses import dataclass, field
from typing import Final

SHOWN_LIMIT: Final = 20


@dataclass
class Differences:
    """`lost`: should be there and is not. `duplicated`: is there more than once, or should not be.
    `wrong`: is there, and says something else."""

    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    first: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.lost + self.duplicated + self.wrong

    def note_lost(self, text: str) -> None:
        self.lost += 1
        self._show(f"lost: {text}")

    def note_duplicated(self, text: str) -> None:
        self.duplicated += 1
        self._show(f"duplicated: {text}")

    def note_wrong(self, text: str) -> None:
        self.wrong += 1
        self._show(f"wrong: {text}")

    def add(self, other: "Differences") -> None:
        self.lost += other.lost
        self.duplicated += other.duplicated
        self.wrong += other.wrong
        self.first = (self.first + other.first)[:SHOWN_LIMIT]

    def _show(self, text: str) -> None:
        if len(self.first) < SHOWN_LIMIT:
            self.first.append(text)

"""How much one value of the worker's state may hold: so much that nobody who means it gets there,
and so little that its record always fits into its changelog (`max_message_bytes` of `topics.toml`).

A fact that would go beyond is refused for its content; the control plane refuses the change first.
Every kind of `schemas.codec.STATE_TYPES` that is not named here has a fixed number of fields.
"""

from typing import Final

POOL_GRANTS_MAX: Final = 10_000
"""Live grants of a pool: something is left of them and they are not forfeited yet. An event that
takes from all grants of both its pools must fit into `usage-rated`, too."""

CHANGES_MAX: Final = 10_000
"""Facts of one subject that are kept for events of any age: groups of a member or website, members
of an alias, prices of a meter in one book, settings of an organization."""

REMOVALS_SPARE: Final = 2
"""Beyond `CHANGES_MAX`, for `member_removed` and for aliases that are taken away: whoever was moved
too often can still be deactivated and then removed."""

LISTED_ID_BYTES_MAX: Final = 256
"""Of the ids that such values list (members', groups', grants'), as they stand in JSON: a letter
beyond ASCII has two to four bytes, an escaped one up to six."""

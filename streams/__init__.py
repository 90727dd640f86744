"""What happens to an event between `usage` and `usage-rated`. Imports `schemas` only."""

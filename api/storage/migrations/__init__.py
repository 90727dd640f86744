"""Alembic's scripts: one file a migration, numbered, never edited once released."""

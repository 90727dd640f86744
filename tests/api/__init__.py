"""Tests of the control plane; those of storage and rules run on SQLite and on PostgreSQL."""

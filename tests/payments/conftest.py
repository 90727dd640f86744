"""Databases of both kinds with an organization, a group, and a purchase to be settled."""

from tests.api.conftest import clock, control, empty_database, postgresql_server, store

__all__ = ["clock", "control", "empty_database", "postgresql_server", "store"]

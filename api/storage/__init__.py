"""The control plane's database: tables, migrations, transactions.

May be imported by everything in `api`. Imports SQLAlchemy and `schemas`, never rules or HTTP.
The same tables on SQLite (WAL) and PostgreSQL; what must hold is a constraint of the database.
"""

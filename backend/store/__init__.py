"""The rows: connection, migrations and one module for each aggregate, as typed rows.

Functions that read take `Queries` (the database or an open transaction), functions that write
take a `Transaction`, so that a caller composes several writes into one.
"""

from backend.store.connection import Database, Queries, StoreError, Transaction, open_database

__all__ = ["Database", "Queries", "StoreError", "Transaction", "open_database"]

"""The schema of a store in SQLite, and whose a database file is. It must not know what is stored."""

from __future__ import annotations

from importlib import resources

import apsw

from gateway.errors import StoreError

SCHEMAS = ("001.sql", "002.sql", "003.sql", "004.sql", "005.sql", "006.sql", "007.sql", "008.sql", "009.sql")


def see_whose(connection: apsw.Connection) -> None:
    """Raises `StoreError`, and changes nothing, if the file is a database of another program: our tables among its own
    would be of no use to either."""
    tables = "SELECT 1 FROM sqlite_master"
    whose = f"SELECT user_version > 0, EXISTS ({tables}), EXISTS ({tables} WHERE name = 'deliveries')"
    if len(set(connection.execute(f"{whose} FROM pragma_user_version").fetchall()[0])) > 1:
        raise StoreError(
            f"{connection.filename} is another program's database, or a store that was not copied to its end; let "
            "`store` name a file of its own"
        )


def migrate(connection: apsw.Connection) -> None:
    """Brings the schema up to date; a schema of a newer release is refused."""
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        found = connection.pragma("user_version")
        if found > len(SCHEMAS):
            raise StoreError(
                f"the store has schema {found}, this release knows {len(SCHEMAS)}: it was written by a newer release"
            )
        for number, name in enumerate(SCHEMAS[found:], found + 1):
            connection.execute(resources.files("gateway.store").joinpath("schema", name).read_text("utf8"))
            connection.pragma("user_version", number)
    connection.execute("COMMIT")

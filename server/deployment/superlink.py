"""Runs Flower's SuperLink in this process, after its database was compacted.

Flower deletes what has been delivered, but the file keeps its greatest size: some twice the model for each study.
It gives a call up that has waited five seconds for another's write, and the study's run is lost: on a busy machine a
model of 500 MB takes longer. Here it waits almost as long as the gateway does.

    python -m server.deployment.superlink FOLDER
"""

import sqlite3
import sys
from pathlib import Path

from server.deployment.config import LOOPBACK, Server

_PATIENCE = 50_000  # ms that one write waits for another
_WORTH_IT = 50_000_000  # bytes: a run that waits for the SuperLink's return is not kept waiting for less


def compact(database: Path) -> int:
    """Give the disk back what the database does not use any more; returns the bytes. Raises sqlite3.Error."""
    if not database.exists():
        return 0
    size = database.stat().st_size
    connection = sqlite3.connect(database, timeout=5)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        free, page = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("freelist_count", "page_size"))
        if free * page < _WORTH_IT:
            return 0
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return size - database.stat().st_size


def command(server: Server) -> list[str]:
    """The SuperLink as this coordinator runs it: on loopback, with sites known by their keys, and no program of its
    own."""
    return [
        str(Path(sys.executable).with_name("flower-superlink")),
        *("--host", LOOPBACK),
        *("--port", str(server.config().flower_port)),
        *("--ssl-ca-certfile", str(server.inside)),
        *("--ssl-certfile", str(server.inside)),
        *("--ssl-keyfile", str(server.inside_key)),
        *("--database", str(server.database)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(server.executor_secret)),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]


def main(folder: Path) -> None:
    server = Server(folder)
    try:
        if saved := compact(server.database):
            print(f"The database is {saved:,} bytes smaller.", flush=True)
    except sqlite3.Error as error:  # the SuperLink runs with it, or says better what is wrong with it
        print(f"The database was not compacted: {error}", file=sys.stderr, flush=True)
    from flwr.supercore import sql_mixin  # of Flower's internals, which are pinned
    from flwr.superlink.cli import flower_superlink

    settings = dict(sql_mixin.SQLITE_PRAGMAS) | {"busy_timeout": str(_PATIENCE)}
    sql_mixin.SQLITE_PRAGMAS = tuple(settings.items())  # type: ignore[assignment]
    sys.argv = command(server)
    flower_superlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Rows of the two table formats, Parquet and a database query, streamed in batches; rows count from 1."""

import gzip
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from client.notes.check import Broken
from client.notes.rows import Rows, open_bytes
from common.errors import InputError, MachineError

if TYPE_CHECKING:
    from sqlalchemy import Engine

BATCH = 256
COPY_BYTES = 2**20


@contextmanager
def parquet_file(path: Path, wanted: Collection[str]) -> Iterator[Rows]:
    """A Parquet file, of which only the `wanted` columns are read.

    Raises:
        InputError: no Parquet, or damaged.
        MachineError: it is gzip, and there is no room to unpack it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_bytes(path) as stream, tempfile.TemporaryFile() as unpacked:
        if packed := isinstance(stream, gzip.GzipFile):
            # Parquet is read from its end backwards, which gzip cannot do: it is unpacked to an unnamed file first.
            _unpack(stream, unpacked)
        try:
            # Buffered and not pre-read, so that one row group of 250,000 notes is not held in memory at once.
            file = pq.ParquetFile(unpacked if packed else stream, buffer_size=COPY_BYTES, pre_buffer=False)
            columns = list(file.schema_arrow.names)
            batches = file.iter_batches(BATCH, columns=[c for c in columns if c in wanted], use_threads=False)
            rows = (values for batch in batches for values in batch.to_pylist())
            yield Rows(columns, enumerate(rows, start=1))
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            raise InputError(
                "notes-damaged",
                f"{path} is no readable Parquet file.",
                "Export it again, or correct its name's ending.",
            ) from None


def _unpack(stream: gzip.GzipFile, unpacked: IO[bytes]) -> None:
    while chunk := stream.read(COPY_BYTES):
        try:
            unpacked.write(chunk)
        except OSError as error:
            raise MachineError(
                "disk-full",
                f"The Parquet file could not be unpacked in {tempfile.gettempdir()}: {error.strerror}.",
                "Free space there, or set TMPDIR to a folder on a larger disk.",
            ) from None
    unpacked.seek(0)


@contextmanager
def query(url: str, statement: str) -> Iterator[Rows]:
    """The rows that a query selects. Nothing is ever committed.

    An error carries neither the database's message, which may quote a value, nor the password in the URL.

    Raises:
        InputError: no database URL, a database that is missing or refuses, a query that fails or selects nothing.
        MachineError: the database's driver is not installed.
    """
    import sqlalchemy
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    engine = _engine(url)
    shown = engine.url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            streaming = connection.execution_options(stream_results=True, yield_per=BATCH)
            result = streaming.execute(sqlalchemy.text(statement))
            if not result.returns_rows:
                raise InputError("notes-query", f"The query on {shown} selects nothing.", "Write a SELECT.")
            rows: Iterator[dict[str, object] | Broken] = (dict(row) for row in result.mappings())
            yield Rows(list(result.keys()), enumerate(rows, start=1))
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None)
        raise InputError(
            "notes-query",
            f"The query on {shown} failed ({type(cause).__name__}{f', {state}' if state else ''}).",
            "Try it in the database's own client: its message is withheld here because it may quote notes.",
        ) from None
    finally:
        engine.dispose()


def _engine(url: str) -> "Engine":
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        parsed = sqlalchemy.make_url(url)
        in_memory = parsed.database in (None, "", ":memory:")
        if parsed.get_backend_name() == "sqlite" and not in_memory and not Path(parsed.database or "").is_file():
            # SQLite would make an empty database of that name, and then miss the table.
            raise InputError("notes-missing", f"The database {parsed.database} does not exist.", "Correct the URL.")
        return sqlalchemy.create_engine(parsed)
    except (NoSuchModuleError, ImportError):
        raise MachineError(
            "driver-missing",
            f"The driver for {url.split('://')[0]} databases is not installed.",
            "Install the Python package that SQLAlchemy needs for it.",
        ) from None
    except (ArgumentError, ValueError):
        raise InputError(
            "notes-url", "The source of notes holds :// but is no database URL.", "Write dialect://user@host/database."
        ) from None

"""The option that says where a record is kept, of every command that begins one."""

from typing import Annotated

import typer

Db = Annotated[
    str | None,
    typer.Option(
        help="Keep the record in this database (a URL of SQLAlchemy's, such as postgresql+psycopg://host/name), and "
        "not in the run's folder.",
        metavar="URL",
    ),
]

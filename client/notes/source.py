"""Where a hospital's notes are and what their columns are called: the `[notes]` part of `site.toml`."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Columns(BaseModel):
    """Which column holds what.

    None means: the column of that same name, where the file has one. A name that is given must exist.
    `site` names the hospital where one file holds several (simulations).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = "text"
    id: str | None = None
    patient: str | None = None
    category: str | None = None
    label: str | None = None
    date: str | None = None
    split: str | None = None
    site: str | None = None

    def names(self) -> dict[str, str]:
        """Field of a note -> the column to look for."""
        return {field: getattr(self, field) or field for field in type(self).model_fields}

    def required(self) -> list[str]:
        """The columns that must exist: the text, and whatever was named."""
        return list(dict.fromkeys(name for field in type(self).model_fields if (name := getattr(self, field))))


class NotesSource(BaseModel):
    """A file (`.csv`, `.jsonl`, `.ndjson`, `.parquet`, each optionally gzip), or an SQLAlchemy URL and a query.

    At most `skip_bad` broken rows are left out; one more refuses the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    query: str | None = None
    columns: Columns = Columns()
    skip_bad: int = Field(default=0, ge=0)

    @property
    def is_database(self) -> bool:
        return "://" in self.source

    @model_validator(mode="after")
    def _query_goes_with_a_database(self) -> Self:
        if self.is_database and not self.query:
            raise ValueError("a database URL needs a query")
        if self.query and not self.is_database:
            raise ValueError("a query needs a database URL as its source, not a file")
        return self

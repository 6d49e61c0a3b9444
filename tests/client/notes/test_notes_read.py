"""Every format gives the same notes; columns are found, mapped and missed as documented."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from notes_helpers import pack, refusal, words, write_csv, write_jsonl, write_parquet
from pydantic import ValidationError

from client.notes.check import Note
from client.notes.read import read_notes
from client.notes.source import Columns, NotesSource

ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": f'He said "ouch",\nthen left. {words(1)}', "patient": "p1", "label": "A", "date": "2020-02-29"},
    {"id": 2, "text": "Fièvre à 39 °C – naïve 测试 😀", "patient": "p2", "label": None, "date": "2020-03-01T10:00:00"},
    {"id": 3, "text": None, "patient": "p2", "label": "B", "date": None},
]
WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "ndjson": write_jsonl, "parquet": write_parquet}


def notes(path: Path | str, **source: Any) -> list[Note]:
    return list(read_notes(NotesSource(source=str(path), **source)))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_gives_the_same_notes(tmp_path: Path, ending: str, packed: bool) -> None:
    path = WRITERS[ending](tmp_path / f"notes.{ending}", ROWS)
    found = notes(pack(path) if packed else path)
    assert [note.text for note in found] == [row["text"] or "" for row in ROWS]
    assert [note.id for note in found] == ["1", "2", "3"]
    assert [note.patient for note in found] == ["p1", "p2", "p2"]
    assert [note.label for note in found] == ["A", None, "B"]
    assert [note.date for note in found] == ["2020-02-29", "2020-03-01T10:00:00", None]
    assert found[0].category is None and found[0].split is None and found[0].site is None


def test_gzip_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", ROWS)
    path.write_bytes(pack(path).read_bytes())
    assert len(notes(path)) == 3
    plain = write_jsonl(tmp_path / "plain.jsonl.gz", ROWS)
    assert len(notes(plain)) == 3


def test_a_csv_row_is_numbered_by_the_line_it_starts_on(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    path.write_bytes(b'\xef\xbb\xbfid,text\r\n1,"a\r\nb\r\nc"\r\n\r\n2,d\r\n3,"e\nf"\n4,g')
    found = notes(path)
    assert [(note.row, note.id) for note in found] == [(2, "1"), (6, "2"), (7, "3"), (9, "4")]
    assert found[0].text == "a\r\nb\r\nc"


def test_a_json_line_is_numbered_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"text": "a"}\n\n  \n{"text": "b"}')
    assert [note.row for note in notes(path)] == [1, 4]


def omop(path: Path) -> str:
    """An OMOP-style NOTE table in SQLite; its URL."""
    engine = sqlalchemy.create_engine(url := f"sqlite:///{path}")
    table = sqlalchemy.Table(
        "note",
        sqlalchemy.MetaData(),
        sqlalchemy.Column("note_id", sqlalchemy.Integer, primary_key=True),
        sqlalchemy.Column("person_id", sqlalchemy.Integer),
        sqlalchemy.Column("note_date", sqlalchemy.Date),
        sqlalchemy.Column("note_title", sqlalchemy.String),
        sqlalchemy.Column("note_text", sqlalchemy.Text),
    )
    table.metadata.create_all(engine)
    rows = [
        {
            "note_id": number,
            "person_id": number // 3,
            "note_date": datetime.date(2020, 1, 1 + number % 28),
            "note_title": "Discharge summary" if number % 2 else None,
            "note_text": words(number),
        }
        for number in range(1, 601)
    ]
    with engine.begin() as connection:
        connection.execute(table.insert(), rows)
    engine.dispose()
    return url


OMOP = Columns(text="note_text", id="note_id", patient="person_id", date="note_date", category="note_title")


def test_a_query_on_an_omop_table(tmp_path: Path) -> None:
    url = omop(tmp_path / "omop.db")
    found = notes(url, query="SELECT * FROM note ORDER BY note_id", columns=OMOP)
    assert len(found) == 600
    assert found[4] == Note(
        row=5, text=words(5), id="5", patient="1", category="Discharge summary", label=None, date="2020-01-06"
    )
    assert found[5].category is None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT * FROM nothing", "notes-query"),
        ("SELECT", "notes-query"),
        ("SELECT note_id AS text FROM note WHERE 0", "notes-empty"),
        ("DELETE FROM note", "notes-query"),
        ("SELECT note_id FROM note", "notes-column"),
    ],
)
def test_a_query_that_fails(tmp_path: Path, query: str, code: str) -> None:
    url = omop(tmp_path / "omop.db")
    assert refusal(url, query=query).code == code
    assert len(notes(url, query="SELECT * FROM note", columns=OMOP)) == 600


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert refusal(f"sqlite:///{tmp_path}/no.db", query="SELECT 1").code == "notes-missing"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "code"), [("nosuch://host/db", "driver-missing"), ("sqlite://h:x/y", "notes-url"), ("://", "notes-url")]
)
def test_a_url_that_is_no_database(url: str, code: str) -> None:
    assert refusal(url, query="SELECT 1").code == code


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    url = f"sqlite:///{omop(tmp_path / 'omop.db').removeprefix('sqlite:///')}?password=hunter2"
    assert "hunter2" not in str(refusal(url.replace("sqlite", "nosuch"), query="SELECT 1"))


def test_values_become_plain_strings(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1.0, "text": "one", "patient": 7.5, "label": True, "category": " x ", "date": datetime.date(2020, 1, 2)},
        {"id": None, "text": "two", "patient": None, "label": None, "category": "", "date": None},
    ]
    first, second = notes(write_parquet(tmp_path / "notes.parquet", rows))
    assert first == Note(1, "one", id="1", patient="7.5", label="True", category="x", date="2020-01-02")
    assert second == Note(2, "two")
    path = write_parquet(tmp_path / "decimal.parquet", [{"text": "a", "id": decimal.Decimal("12.00")}])
    assert notes(path)[0].id == "12"


def test_splits_have_their_common_names(tmp_path: Path) -> None:
    given = ["train", "Dev", "val", "VALID", "validation", " test ", "", None]
    path = write_jsonl(tmp_path / "notes.jsonl", [{"text": "a", "split": name} for name in given])
    assert [note.split for note in notes(path)] == ["train", "dev", "dev", "dev", "dev", "test", None, None]


@pytest.mark.parametrize("ending", WRITERS)
def test_a_named_column_must_exist(tmp_path: Path, ending: str) -> None:
    path = WRITERS[ending](tmp_path / f"notes.{ending}", [{"body": "x", "ward": "w"}])
    error = refusal(path)
    assert error.code == "notes-column"
    assert "'body', 'ward'" in str(error) and "--text-column" in str(error)
    error = refusal(path, columns=Columns(text="body", label="diagnosis"))
    assert "'diagnosis'" in error.message and "--label-column" in error.next_step
    assert notes(path, columns=Columns(text="body", category="ward"))[0].category == "w"


def test_a_sparse_json_field_is_found(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a"}] * 5 + [{"text": "b", "ward": "w"}]
    path = write_jsonl(tmp_path / "notes.jsonl", rows)
    assert [note.category for note in notes(path, columns=Columns(category="ward"))] == [None] * 5 + ["w"]


def test_a_source_says_what_it_lacks() -> None:
    with pytest.raises(ValidationError, match="needs a query"):
        NotesSource(source="sqlite:///x.db")
    with pytest.raises(ValidationError, match="needs a database"):
        NotesSource(source="notes.csv", query="SELECT 1")
    with pytest.raises(ValidationError):
        NotesSource(source="notes.csv", column={})  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Columns(txt="x")  # type: ignore[call-arg]

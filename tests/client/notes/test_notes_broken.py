"""Broken input is refused with its file, its line and a remedy, and never with a word of a note."""

import gzip
import json
import traceback
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy
from notes_helpers import SECRET, pack, refusal, words, write_csv, write_jsonl, write_parquet

from client.notes.read import BadRow, read_notes
from client.notes.source import NotesSource
from common.errors import InputError

GOOD = json.dumps({"text": f"{SECRET} {words(1)}"}).encode() + b"\n"
HEADER = b"id,text,split,date\n1,a note,train,2020-01-01\n"


def one_line(**values: object) -> bytes:
    return GOOD + json.dumps(values).encode() + b"\n"


# What is wrong -> name of the file, its bytes, the code, the line, and words that the message must hold.
CASES: dict[str, tuple[str, bytes, str, int, str]] = {
    "invalid JSON": ("n.jsonl", GOOD + b'{"text": "zebrafinch"', "notes-broken-row", 2, "not valid JSON"),
    "bad escape": ("n.jsonl", GOOD + b'{"text": "zebrafinch \\q"}', "notes-broken-row", 2, "character"),
    "a JSON list": ("n.jsonl", GOOD + b'["zebrafinch"]\n', "notes-broken-row", 2, "no object"),
    "a JSON string": ("n.jsonl", GOOD + b'"zebrafinch"\n', "notes-broken-row", 2, "no object"),
    "deep JSON": ("n.jsonl", GOOD + b"[" * 200_000, "notes-broken-row", 2, "nested too deep"),
    "no text": ("n.jsonl", one_line(txet=SECRET), "notes-broken-row", 2, "no field 'text'"),
    "text a number": ("n.jsonl", one_line(text=5), "notes-broken-row", 2, "a number, not text"),
    "text a list": ("n.jsonl", one_line(text=[SECRET]), "notes-broken-row", 2, "a list, not text"),
    "text an object": ("n.jsonl", one_line(text={SECRET: 1}), "notes-broken-row", 2, "an object, not text"),
    "label a list": ("n.jsonl", one_line(text=SECRET, label=[SECRET]), "notes-broken-row", 2, "'label' holds a list"),
    "half a character": ("n.jsonl", one_line(text=f"{SECRET} \ud800"), "notes-broken-row", 2, "half of a Unicode"),
    "NUL escaped": ("n.jsonl", one_line(text=f"{SECRET}\0"), "notes-broken-row", 2, "NUL character"),
    "NUL byte": ("n.jsonl", GOOD + b"zebrafinch\0\n", "notes-broken-row", 2, "NUL byte"),
    "5 MB note": ("n.jsonl", one_line(text=SECRET * 500_000), "notes-broken-row", 2, "note too long (5,000,000"),
    "20 MB line": ("n.jsonl", one_line(text=SECRET * 2_000_000), "notes-broken-row", 2, "line of more than"),
    "bad split": ("n.jsonl", one_line(text="a", split=SECRET), "notes-broken-row", 2, "split that is none of"),
    "bad date": ("n.jsonl", one_line(text="a", date=SECRET), "notes-broken-row", 2, "no ISO date"),
    "Latin-1": (
        "n.jsonl",
        GOOD + '{"text": "zebrafinch fièvre"}'.encode("latin-1"),
        "notes-broken-row",
        2,
        "not UTF-8",
    ),
    "UTF-16": ("n.jsonl", '{"text": "zebrafinch"}'.encode("utf-16"), "notes-encoding", 1, "UTF-16"),
    "a zip file": ("n.csv", b"PK\x03\x04zebrafinch", "notes-binary", 1, "binary"),
    "junk": ("n.csv", bytes(range(256)) * 40, "notes-binary", 1, "binary"),
    "Parquet called CSV": ("n.csv", b"PAR1zebrafinch", "notes-binary", 1, "binary"),
    "too few fields": ("n.csv", HEADER + b"zebrafinch\n", "notes-broken-row", 3, "1 fields where the header has 4"),
    "too many": ("n.csv", HEADER + b"1,zebrafinch, x,train,,\n", "notes-broken-row", 3, "6 fields"),
    "CSV split": ("n.csv", HEADER + b"2,zebrafinch,zebrafinch,\n", "notes-broken-row", 3, "'split'"),
    "CSV date": ("n.csv", HEADER + b"2,zebrafinch,,31/12/2020\n", "notes-broken-row", 3, "'date'"),
    "CSV quotes": ("n.csv", HEADER + b'2,"zebrafinch"x,,\n', "notes-broken-row", 3, "closing quote"),
    "open quote": ("n.csv", HEADER + b'2,"zebrafinch,,\n3,b,,\n', "notes-quote", 3, "never closed"),
    "long open quote": ("n.csv", HEADER + b'2,"' + b"zebrafinch\n" * 1_600_000, "notes-quote", 3, "never closed"),
    "CSV Latin-1": ("n.csv", HEADER + b'2,"a\nb\nzebrafinch \xe9",,\n', "notes-broken-row", 3, "byte 63 of the file"),
    "CSV NUL": ("n.csv", HEADER + b"2,zebrafinch\0,,\n", "notes-broken-row", 3, "NUL"),
    "Latin-1 header": ("n.csv", b"text,\xe9tat\nzebrafinch,b\n", "notes-header", 1, "not UTF-8"),
    "semicolons": ("n.csv", b"id;text\n1;zebrafinch\n", "notes-header", 1, "not separated by commas"),
    "repeated header": ("n.csv", b"text,text\nzebrafinch,b\n", "notes-header", 1, "repeats 'text'"),
    "header quote": ("n.csv", b'text,"id"x\nzebrafinch,b\n', "notes-header", 1, "no valid CSV"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("case", CASES)
def test_what_is_broken_is_refused_by_file_and_line(tmp_path: Path, case: str, packed: bool) -> None:
    name, content, code, line, part = CASES[case]
    path = tmp_path / name
    path.write_bytes(content)
    error = refusal(pack(path) if packed else path)
    assert isinstance(error, InputError)
    assert (error.code, part in error.message) == (code, True), error.message
    assert error.message.startswith(f"{path}{'.gz' if packed else ''}, line {line}: ")
    assert error.next_step
    assert SECRET not in "".join(traceback.format_exception(error))


def test_what_is_no_file_of_notes_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.csv").code == "notes-missing"
    assert refusal(tmp_path).code == "notes-folder"
    assert refusal("/dev/null").code == "notes-folder"
    (tmp_path / "notes.docx").write_text(SECRET)
    assert refusal(tmp_path / "notes.docx" / "notes.csv").code == "notes-missing"
    assert refusal(tmp_path / "notes.docx").code == "notes-format"


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", [{"text": SECRET}])
    # The tests may run as root, whom no mode keeps out.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert refusal(path).code == "notes-unreadable"


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", ""), ("b.jsonl", ""), ("c.csv", "id,text\n"), ("d.jsonl", "\n\n")]
)
def test_a_file_without_notes_is_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert refusal(path).code == "notes-empty"
    assert refusal(pack(path)).code == "notes-empty"


def test_parquet_without_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "notes.parquet")
    assert refusal(tmp_path / "notes.parquet").code == "notes-empty"


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    for name, writer in (("a.jsonl", write_jsonl), ("b.csv", write_csv), ("c.parquet", write_parquet)):
        path = pack(writer(tmp_path / name, [{"text": words(seed)} for seed in range(500)]))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert refusal(path).code == "notes-damaged"


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "notes.parquet", [{"text": words(seed)} for seed in range(3000)])
    whole = path.read_bytes()
    for damaged in (whole[:-1000], b"no parquet", whole[:2000] + bytes(2000) + whole[4000:]):
        path.write_bytes(damaged)
        assert refusal(path).code == "notes-damaged"


@pytest.mark.parametrize("values", [[1, 2], [b"\xff\xfe", b"x"], [["a"], ["b"]]], ids=["numbers", "bytes", "lists"])
def test_parquet_text_that_is_no_text_is_refused_by_row(tmp_path: Path, values: list[object]) -> None:
    error = refusal(write_parquet(tmp_path / "notes.parquet", [{"text": value} for value in values]))
    assert error.code == "notes-broken-row" and ", row 1: " in error.message and "not text" in error.message


def test_a_database_error_does_not_repeat_a_note(tmp_path: Path) -> None:
    engine = sqlalchemy.create_engine(url := f"sqlite:///{tmp_path}/notes.db")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE note (text TEXT)"))
        # SQLite's own message about this row would quote it.
        connection.execute(sqlalchemy.text(f"INSERT INTO note VALUES (CAST(X'{SECRET.encode().hex()}FF' AS TEXT))"))
    error = refusal(url, query="SELECT text FROM note")
    assert error.code == "notes-query" and SECRET not in "".join(traceback.format_exception(error))


MIXED = [b'{"text": "one"}', b"nonsense", b'{"text": 2}', b'{"text": "\xe9"}', b'{"text": ""}', b'{"text": "five"}']


def test_broken_rows_up_to_a_number_are_tolerated_and_listed(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"\n".join(MIXED))
    skipped: list[BadRow] = []
    notes = list(read_notes(NotesSource(source=str(path), skip_bad=3), skipped))
    assert [note.text for note in notes] == ["one", "", "five"]
    assert [line for line, _ in skipped] == [2, 3, 4]
    assert all(reason for _, reason in skipped)


def test_one_broken_row_too_many_is_refused_with_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"\n".join(MIXED))
    error = refusal(path, skip_bad=2)
    assert error.code == "notes-broken-row"
    assert all(f"\n  line {line}: " in error.message for line in (2, 3, 4))
    assert "--skip-bad" in error.next_step


def test_a_file_of_broken_rows_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"nonsense\n" * 50)
    assert refusal(path, skip_bad=10).code == "notes-broken-row"


def test_broken_rows_of_csv_are_tolerated_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv.gz"
    path.write_bytes(gzip.compress(HEADER + b'2,"a\nb\xe9",,\n3,c,,\n4,d,wrong,\n5,e\n6,"f\n",test,\n'))
    skipped: list[BadRow] = []
    notes = list(read_notes(NotesSource(source=str(path), skip_bad=3), skipped))
    assert [(note.id, note.row) for note in notes] == [("1", 2), ("3", 5), ("6", 8)]
    assert [line for line, _ in skipped] == [3, 6, 7]

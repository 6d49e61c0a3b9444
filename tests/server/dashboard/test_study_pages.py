"""Pages, files and addresses: what there is, what there is not, and that a record cannot lead elsewhere."""

import io
import json
import shutil
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
from dashboards import Dashboard, Start, add_record, add_run
from example_summary import example_summary, site_facts
from markupsafe import escape
from sqlalchemy import update

from server.dashboard.downloads import offered
from server.dashboard.library import Library
from server.events import Event
from server.record.database import Database
from server.record.place import opened
from server.record.recorder import Recorder
from server.record.tables import StudyRow

ODD_NAMES = ["<script>alert(1)</script>", "'; drop table study; --", '"><img src=x onerror=alert(2)>', "Søndre & Østre"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "second", "damaged", "gone"):
        add_run(folder, name, study=f"of-{name}")
    database, study = opened(folder / "first")
    for name in ODD_NAMES:
        Recorder(database, study)(Event("joined", 0, name, result=site_facts(name, 200, 40, 0)))
    database.close()
    (folder / "damaged" / "record.sqlite").write_bytes(b"damaged" * 1000)
    for left in folder.glob("damaged/record.sqlite-*"):
        left.unlink()
    (folder / "gone" / "record.sqlite").unlink()
    (folder / "no-run").mkdir()
    return folder


@pytest.fixture(scope="module")
def dashboard(start_dashboard: Start, runs: Path) -> Dashboard:
    return start_dashboard(runs)


def test_a_damaged_record_does_not_hide_the_others(dashboard: Dashboard) -> None:
    page = dashboard.shown("/")
    assert "of-first" in page and "of-second" in page and "no-run" not in page
    assert "cannot be read or written" in page and "record.sqlite is gone" in page
    answer = dashboard.get("/study/damaged")
    assert answer.status_code == 503 and "cannot be read or written" in answer.text


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_of_a_site_is_a_name_and_nothing_else(dashboard: Dashboard, name: str) -> None:
    answer = dashboard.get(f"/study/first/site/{quote(name, safe='')}")
    if "/" in name:
        assert answer.status_code == 404  # a name with a slash has no page of its own; the study's shows it
    else:
        assert answer.status_code == 200 and str(escape(name)) in dashboard.shown(
            f"/study/first/site/{quote(name, safe='')}"
        )
    for page in (answer.text, dashboard.shown("/study/first")):
        assert "<script>alert" not in page and "<img src=x" not in page
    assert dashboard.get("/study/second").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/study/unknown",
        "/study/first/site/unknown",
        "/study/unknown/site/unknown",
        "/study/first/file/unknown",
        "/study/first/file/record.sqlite",
        "/study/first/file/record.json",
        "/study/first/file/..%2Frecord.sqlite",
        "/study/first/file/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/study/..%2Ffirst/file/plan.toml",
        "/study/%2e%2e",
        "/study/no-run",
        "/study/'; drop table study; --",
    ],
)
def test_what_is_not_there_is_said(dashboard: Dashboard, path: str) -> None:
    answer = dashboard.get(path)
    assert answer.status_code == 404 and "There is no such" in answer.text


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("", 0),
        ("?study=first", 1),
        ("?study=first&study=second", 2),
        ("?study=first&study=first&study=unknown&study=../first&study=damaged&study=%27;drop%20table%20study", 1),
    ],
)
def test_studies_beside_each_other(dashboard: Dashboard, query: str, rows: int) -> None:
    page = dashboard.shown("/compare" + query)
    assert ("No study was chosen" in page) == (rows == 0)
    assert page.count('scope="row">of-') == rows


def test_files_of_a_run_can_be_downloaded(dashboard: Dashboard, runs: Path) -> None:
    run = runs / "second"
    (run / "report.html").write_text("<script>alert(1)</script>")
    (run / "summary.json").write_text(example_summary().model_dump_json())
    (run / "model").mkdir(exist_ok=True)
    (run / "model" / "config.json").write_text("{}")
    (run / "model" / "outside").symlink_to("/etc/passwd")
    (run / "export").mkdir()
    (run / "export" / "README.md").write_text("card")
    page = dashboard.get("/study/second/file/report.html")
    assert page.content == (run / "report.html").read_bytes()
    assert page.headers["content-disposition"] == 'attachment; filename="report.html"'
    assert page.headers["content-type"] == "application/octet-stream"  # no browser runs it in the dashboard's name
    assert json.loads(dashboard.get("/study/second/file/summary.json").text)["status"] == "finished"
    model = dashboard.get("/study/second/file/model.zip")
    assert zipfile.ZipFile(io.BytesIO(model.content)).namelist() == ["model/config.json"]
    release = dashboard.get("/study/second/file/export.zip")
    assert zipfile.ZipFile(io.BytesIO(release.content)).read("export/README.md") == b"card"


def test_a_link_in_a_run_leads_nowhere(dashboard: Dashboard, runs: Path) -> None:
    run = runs / "first"
    for name in ("report.html", "model"):
        (run / name).symlink_to("/etc/passwd" if name == "report.html" else "/etc")
    for name in ("report.html", "model.zip"):
        assert dashboard.get(f"/study/first/file/{name}").status_code == 404


def test_a_database_cannot_name_another_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'all.sqlite'}"
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    add_record(run, url, "in-a-database", True, example_summary())
    shutil.copytree(run, other)
    (other / "record.json").write_text(
        (run / "record.json").read_text().replace(Library(None, url).keys()[0], "0" * 32)
    )
    key = Library(None, url).keys()[0]
    entry = Library(None, url).entry(key)
    assert entry and entry.run == run and [name for name, _ in offered(entry)] == ["plan.toml"]
    for elsewhere in (str(other), "/etc", "", "\0"):
        change = update(StudyRow).values(folder=elsewhere)
        Database(url).write(lambda session, change=change: session.execute(change))  # type: ignore[misc]
        entry = Library(None, url).entry(key)
        assert entry and entry.run is None and offered(entry) == []


def test_studies_of_a_database_are_shown(start_dashboard: Start, tmp_path: Path, postgresql: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        add_record(tmp_path / name, postgresql, f"study-{name}", True, example_summary())
    library = Library(None, postgresql)
    keys = [key for key, listed, _ in library.listed() if listed and listed.name == "study-two"]
    dashboard = start_dashboard(None, "--db", postgresql)
    page = dashboard.shown("/")
    assert "study-one" in page and "study-two" in page
    assert "Northgate General" in dashboard.shown(f"/study/{keys[0]}")
    assert dashboard.get(f"/study/{keys[0]}/file/plan.toml").status_code == 200


def test_one_plan_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'all.sqlite'}"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        add_record(tmp_path / name, url, name, True, example_summary())
    change = update(StudyRow).where(StudyRow.name == "one").values(plan="[study")
    Database(url).write(lambda session: session.execute(change))
    listed = Library(None, url).listed()
    assert sorted((one.name if one else "", bool(problem)) for _, one, problem in listed) == [
        ("", True),
        ("two", False),
    ]


def test_an_empty_folder_says_how_to_begin(start_dashboard: Start, tmp_path: Path) -> None:
    page = start_dashboard(tmp_path).shown("/")
    assert "No study in " in page and "makes one on synthetic notes" in page

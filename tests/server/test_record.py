"""The record holds what the rounds told it, in SQLite and in PostgreSQL, and gives back what a report would show."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from example_summary import example_summary
from scripted_sites import Scripted, killed, moved, refuse

from common.errors import StudyError
from common.plan import StudyPlan
from server.events import Event
from server.record.events import EventReader, events
from server.record.listing import studies
from server.record.place import PLACE_FILE, create, opened
from server.record.reader import SILENT, read_study, version
from server.record.recorder import Recorder, recording
from server.record.tables import StudyRow


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, run: Path, make_plan: Callable[..., StudyPlan]) -> Path:
    """The folder of a run with its record in one of the two."""
    url = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    create(run, make_plan(federation={"rounds": 3}), "inprocess", url)
    return run


def scripted(run: Path, plan: StudyPlan, **more: object) -> Scripted:
    return Scripted(plan, run / "checkpoints", record=Recorder(*opened(run)), **more)  # type: ignore[arg-type]


def test_it_gives_back_the_rounds_that_the_checkpoint_has(place: Path) -> None:
    database, study = opened(place)
    plan = read_study(database, study).plan
    rounds = scripted(place, plan, answers={("northgate", "train", 2): refuse("out-of-memory")})
    state = rounds.run()
    found = read_study(database, study)
    assert found.state == "running" and found.rounds == state.rounds and found.sites == state.sites
    assert [one.round for one in found.checkpoints] == [0, 1, 2, 3]
    assert found.checkpoints[-1].digest == rounds.kept[0].digests["shared"]
    (incident,) = found.incidents
    assert (incident.round, incident.site, incident.code) == (2, "northgate", "out-of-memory")
    assert incident.sentence == "northgate ran out of memory." and "batch_size" in incident.next_step
    states = {one.site: one.state for one in found.progress[2]}
    assert states == {"eastholme": "returned", "millbrook": "returned", "northgate": "failed"}
    assert all(one.asked <= one.returned for one in found.progress[3])  # type: ignore[operator]
    assert sum(one.weight or 0.0 for one in found.progress[3]) == pytest.approx(1.0)


def test_what_points_elsewhere_is_seen(place: Path) -> None:
    plan = read_study(*opened(place)).plan
    update = lambda site, number, arrays: moved(arrays, -1.0 if site == "eastholme" else 1.0)
    state = scripted(place, plan, update=update).run()
    assert [one.cosine for one in state.rounds[1].sites] == pytest.approx([-1.0, 1.0, 1.0])
    assert [one.weight for one in state.rounds[1].sites] == pytest.approx([10 / 260, 200 / 260, 50 / 260])


def test_scores_and_an_end(place: Path) -> None:
    summary = example_summary()
    database, study = opened(place)
    Recorder(database, study).end(summary, None)
    found = read_study(database, study)
    assert found.state == "finished" and found.finished is not None
    for name in ("scores", "comparisons", "not_scored", "memorisation"):
        key = lambda one: one.model_dump_json()
        assert sorted(getattr(found, name), key=key) == sorted(getattr(summary, name), key=key)
    assert (found.parameters, found.shared_parameters) == (summary.parameters, summary.shared_parameters)


def test_a_study_that_is_resumed_has_every_round_once(place: Path) -> None:
    database, study = opened(place)
    plan = read_study(database, study).plan
    with pytest.raises(KeyboardInterrupt):
        scripted(place, plan, answers={("millbrook", "train", 2): killed}).run()
    half = read_study(database, study)
    assert [one.number for one in half.rounds] == [0, 1] and max(half.begun) == 2
    assert {one.site: one.state for one in half.progress[2]}["millbrook"] == "training"
    state = scripted(place, plan).run()
    assert read_study(database, study).rounds == state.rounds


def test_what_a_kill_kept_from_the_record_is_written_when_the_study_goes_on(place: Path) -> None:
    """The checkpoint of round 2 stood, and the record had not heard of it."""
    database, study = opened(place)
    plan = read_study(database, study).plan
    recorder = Recorder(database, study)

    def deaf(event: Event) -> None:
        if event.kind == "round-ended" and event.round == 2:
            raise KeyboardInterrupt
        recorder(event)

    rounds = Scripted(plan, place / "checkpoints", record=deaf)
    with pytest.raises(KeyboardInterrupt):
        rounds.run()
    assert [one.number for one in read_study(database, study).rounds] == [0, 1]
    rounds.record = recorder
    state = rounds.run()
    found = read_study(database, study)
    assert found.rounds == state.rounds and [one.round for one in found.checkpoints] == [0, 1, 2, 3]


def test_events_are_read_once_and_in_order(place: Path) -> None:
    database, study = opened(place)
    reader, recorder = EventReader(place), Recorder(database, study)
    assert list(reader.new()) == []
    first, second = Event("round-started", 1), Event("left-out", 1, "Ærø\n", 'it said "no"', "diverged")
    recorder(first)
    assert [event for _, event in reader.new()] == [first]
    recorder(second)
    assert [event for _, event in reader.new()] == [second] and list(reader.new()) == []
    assert [one["next_step"] for one in events(database, study)] == ["", "Lower learning_rate in the plan."]
    before = version(database, study)
    recorder(Event("action", 1, text="somebody looked"))
    assert version(database, study) > before


def test_two_studies_in_one_database_are_apart(
    place: Path, tmp_path: Path, make_plan: Callable[..., StudyPlan]
) -> None:
    database, study = opened(place)
    other = tmp_path / "other"
    other.mkdir()
    create(other, make_plan(study={"name": "other", "seed": 1}), "flower", database.url)
    Recorder(*opened(other))(Event("left-out", 0, "north", "it is not online", "not-online"))
    assert read_study(database, study).left_out == {} and read_study(*opened(other)).left_out.keys() == {"north"}
    assert {"test", "other"} <= {one.name for one in studies(database)}


def test_nobody_works_on_a_study_that_gives_no_sign_of_life(place: Path) -> None:
    database, study = opened(place)
    recorder = Recorder(database, study)
    recorder(Event("began", 0))

    def age(seconds: float) -> None:
        old = datetime.now(UTC) - timedelta(seconds=seconds)
        database.write(lambda session: setattr(session.get_one(StudyRow, study), "heartbeat", old))

    age(SILENT - 5)
    assert read_study(database, study).state == "running"
    age(SILENT + 1)
    assert read_study(database, study).state == "interrupted"
    with recording(place):
        deadline = threading.Event()
        for _ in range(100):
            if read_study(database, study).state == "running":
                break
            deadline.wait(0.05)
        assert read_study(database, study).state == "running"


def test_why_a_study_stopped(place: Path) -> None:
    database, study = opened(place)
    recorder = Recorder(database, study)
    recorder.stop(StudyError("too-few-sites", "1 site is online.", "Ask the sites."))
    found = read_study(database, study)
    assert (found.state, found.code, found.message) == ("stopped", "too-few-sites", "1 site is online. Ask the sites.")
    recorder(Event("began", 0))
    assert read_study(database, study).state == "running" and read_study(database, study).message == ""


def test_names_that_are_sql_or_markup_are_only_names(place: Path) -> None:
    database, study = opened(place)
    name = "'; drop table study; -- <script>alert(1)</script> \\ % _"
    recorder = Recorder(database, study)
    recorder(Event("left-out", 0, name, name, "diverged"))
    recorder(Event("action", 0, text=name))
    found = read_study(database, study)
    assert list(found.left_out) == [name] and found.actions[-1].sentence == name


def test_a_run_without_a_record(run: Path) -> None:
    assert list(EventReader(run).new()) == [] and not (run / PLACE_FILE).exists()
    with recording(run) as nothing:
        assert nothing is None

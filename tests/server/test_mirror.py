"""A study in TensorBoard and MLflow, read back by their own means: all of the record, each value once, nothing else."""

import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from example_summary import example_summary
from scripted_sites import NAMES, Scripted, killed

from common.errors import FednotesError, MachineError
from common.plan import StudyPlan
from common.results import NO_DP
from server.events import Event
from server.mirror.figures import name, parameters, part, steps, tags
from server.record.place import create, opened
from server.record.reader import StudyRecord, read_study
from server.record.recorder import Recorder

pytest.importorskip("tensorboard", reason='TensorBoard is not installed: the extra "tensorboard"')
pytest.importorskip("mlflow", reason='MLflow is not installed: the extra "mlflow"')

from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from server.mirror import follow as follow_module
from server.mirror.mlflow_sink import MlflowSink
from server.mirror.sink import Written
from server.mirror.tensorboard_sink import TensorBoardSink

Found = dict[str, list[tuple[int, float]]]  # name -> (round, value) in order
ODD = ["St Brigid's", "Ærø", "../etc", "a|b<i>", "x" * 190]


def study(run: Path, plan: StudyPlan, **more: Any) -> Scripted:
    if not (run / "record.json").exists():
        run.mkdir(exist_ok=True)
        create(run, plan, "inprocess", None)
    return Scripted(plan, run / "checkpoints", record=Recorder(*opened(run)), **more)


def of(run: Path) -> StudyRecord:
    return read_study(*opened(run))


@pytest.fixture
def plan(make_plan: Callable[..., StudyPlan]) -> StudyPlan:
    return make_plan(federation={"rounds": 3})


@pytest.fixture
def finished(run: Path, plan: StudyPlan) -> Path:
    """A study of three sites and three rounds, with scores."""
    study(run, plan).run()
    Recorder(*opened(run)).end(example_summary(), None)
    return run


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of MLflow's, made once: its migrations take seconds."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    with sqlite3.connect(empty_store) as there, sqlite3.connect(tmp_path / "mlflow.db") as new:
        there.backup(new)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def to_tensorboard(run: Path, boards: Path) -> tuple[Found, dict[str, list[str]]]:
    """Mirror it, and read back scalars and texts."""
    sink = TensorBoardSink(boards, of(run))
    sink.write(of(run))
    sink.close()
    return read_boards(boards)


def read_boards(boards: Path) -> tuple[Found, dict[str, list[str]]]:
    (folder,) = boards.iterdir()
    read = EventAccumulator(str(folder), {"scalars": 0, "tensors": 0})
    read.Reload()
    scalars: Found = {}
    texts: dict[str, list[str]] = {}
    for tag in read.Tags()["tensors"]:
        for event in read.Tensors(tag):
            if event.tensor_proto.string_val:
                texts.setdefault(tag, []).append(event.tensor_proto.string_val[0].decode())
    for tag in read.Tags()["scalars"]:
        scalars[tag] = [(event.step, event.value) for event in read.Scalars(tag)]
    return scalars, texts


def to_mlflow(run: Path, uri: str) -> tuple[Found, Run]:
    MlflowSink(uri, of(run)).write(of(run))
    return read_mlflow(uri)


def read_mlflow(uri: str) -> tuple[Found, Run]:
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = (one.experiment_id for one in client.search_experiments() if one.name == "Fednotes")
    (run,) = client.search_runs([experiment])
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    return {key: sorted((one.step, one.value) for one in values) for key, values in history.items()}, run


def expected(record: StudyRecord) -> Found:
    found: Found = {}
    for step in steps(record):
        for key, value in step.values.items():
            found.setdefault(key, []).append((step.round, value))
    return found


def same(found: Found, wanted: Found) -> bool:
    """TensorBoard keeps float32."""
    assert found.keys() == wanted.keys()
    pairs = [(a, b) for key in wanted for a, b in zip(found[key], wanted[key], strict=True)]
    return all(a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-6) for a, b in pairs)


def test_what_of_a_record_is_mirrored(finished: Path) -> None:
    record = of(finished)
    found = expected(record)
    assert found["held-out loss/northgate"] == [(0, 2.0), (1, 2.0), (2, 2.0), (3, 2.0)]
    assert found["training loss/northgate"] == [(1, 1.5), (2, 1.5), (3, 1.5)]
    assert found["weight/millbrook"][0] == (1, pytest.approx(200 / 260))
    assert found["round/sites that returned"] == [(1, 3), (2, 3), (3, 3)]
    for kind in ("seconds", "bytes down", "bytes up", "update norm", "cosine to the mean update"):
        assert {name(kind, site) for site in NAMES} <= found.keys()
    assert not [key for key in found if key.startswith("epsilon")]
    score = record.scores[0]
    key = name("score", score.model, score.mode, score.metric, score.task, score.site, f"n {score.n_test}")
    assert found[key] == [(3, score.macro_f1.value)] and found[f"{key}/low"] == [(3, score.macro_f1.low)]
    assert sum(key.startswith("score minus/") for key in found) == 3 * len(record.comparisons)
    given = parameters(record)
    assert given["training.learning_rate"] == "0.001" and given["objective.kind"] == "mlm"
    assert (given["plan_hash"], given["privacy"]) == (record.plan_hash, NO_DP) and "versions.torch" in given
    assert tags(record)["privacy"] == NO_DP and tags(record)["state"] == "finished"


def test_both_sinks_hold_exactly_that_and_hold_it_once(finished: Path, tmp_path: Path, uri: str) -> None:
    record = of(finished)
    wanted = expected(record)
    for _ in range(2):
        scalars, texts = to_tensorboard(finished, tmp_path / "boards")
        assert same(scalars, wanted)
        assert len(texts["study/parameters"]) == len(texts["study/state"]) == 1
        metrics, run = to_mlflow(finished, uri)
        assert same(metrics, wanted)
    assert f"| privacy | {NO_DP} |" in texts["study/state"][0] and record.plan_hash in texts["study/parameters"][0]
    assert run.data.params == parameters(record) and run.info.status == "FINISHED" and run.info.run_name == "test"
    own = {"fednotes.study", "fednotes.round", "fednotes.until", "mlflow.runName"}
    assert run.data.tags.keys() - own == {key for key, value in tags(record).items() if value}
    (file,) = (tmp_path / "boards").rglob("*tfevents*")
    assert os.uname().nodename not in file.name


def test_a_study_that_stops_and_goes_on(run: Path, plan: StudyPlan, tmp_path: Path, uri: str) -> None:
    """What was cut off is in neither; what came later is added."""
    with pytest.raises(KeyboardInterrupt):
        study(run, plan, answers={("millbrook", "train", 2): killed}).run()
    scalars, _ = to_tensorboard(run, tmp_path / "boards")
    metrics, there = to_mlflow(run, uri)
    assert [one[0] for one in scalars["held-out loss/millbrook"]] == [0, 1] and metrics.keys() == scalars.keys()
    assert there.info.status == "RUNNING"
    study(run, plan).run()
    Recorder(*opened(run)).end(example_summary(), None)
    scalars, texts = to_tensorboard(run, tmp_path / "boards")
    metrics, there = to_mlflow(run, uri)
    assert same(scalars, expected(of(run))) and same(metrics, expected(of(run)))
    assert [("| state | finished |" in text) for text in texts["study/state"]] == [False, True]
    assert there.info.status == "FINISHED" and there.data.tags["state"] == "finished"


@pytest.mark.parametrize("left", [0.0, 0.2, 0.5, 0.83])
def test_a_mirror_that_was_killed_goes_on(finished: Path, tmp_path: Path, left: float) -> None:
    """Wherever its file was cut off: at once, and within a value."""
    to_tensorboard(finished, tmp_path / "boards")
    (file,) = (tmp_path / "boards").rglob("*tfevents*")
    os.truncate(file, int(left * file.stat().st_size))
    assert not same_keys(read_boards(tmp_path / "boards")[0], expected(of(finished)))
    assert same(to_tensorboard(finished, tmp_path / "boards")[0], expected(of(finished)))


def same_keys(found: Found, wanted: Found) -> bool:
    return {key: len(values) for key, values in found.items()} == {key: len(values) for key, values in wanted.items()}


def test_a_round_that_mlflow_holds_in_part_is_completed(finished: Path, uri: str) -> None:
    """Killed after some values of round 2 and before its tag."""
    _, run = to_mlflow(finished, uri)
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as store:
        removed = store.execute("delete from metrics where step = 3 or step = 2 and key like '%millbrook'").rowcount
        store.execute("update tags set value = '1' where key = 'fednotes.round'")
        began = of(finished).begun[1].isoformat()
        store.execute("update tags set value = ? where key = 'fednotes.until'", (began,))
    assert removed > 8 and not same_keys(read_mlflow(uri)[0], expected(of(finished)))
    metrics, again = to_mlflow(finished, uri)
    assert same(metrics, expected(of(finished))) and again.info.run_id == run.info.run_id


def test_odd_names_keep_apart(tmp_path: Path, run: Path, plan: StudyPlan, uri: str) -> None:
    odd = [*ODD, "a_b:12345678", "a?b", "a*b", "a b", "..", " a b", "Hôpital", "日本", "本日"]
    parts = [part(one) for one in odd]
    assert len({one.lower() for one in parts}) == len(odd) and all(len(one) <= 60 for one in parts)
    assert part("a b") == "a b" and part("St Brigid's").startswith("St_Brigid_s:")
    assert part("Hôpital").startswith("Hopital:") and part("north-gate_2.b") == "north-gate_2.b"
    study(run, plan, names=ODD).run()
    metrics, there = to_mlflow(run, uri)
    scalars, texts = to_tensorboard(run, tmp_path / "boards")
    assert same(metrics, expected(of(run))) and same(scalars, metrics)
    assert sum(key.startswith("held-out loss/") for key in metrics) == len(ODD)
    for site in ODD:
        assert there.data.tags[name("site", site)] == site
    assert "<i>" not in texts["study/state"][0] and "a&#124;b&lt;i&gt;" in texts["study/state"][0]


def test_what_private_sites_withhold_is_not_there(
    run: Path, tmp_path: Path, uri: str, make_plan: Callable[..., StudyPlan]
) -> None:
    private = make_plan(federation={"rounds": 2}, privacy={"epsilon": 3.0, "negatives": "groups"})
    study(run, private).run()
    metrics, there = to_mlflow(run, uri)
    assert metrics["epsilon/northgate"] == [(1, 0.25), (2, 0.5)]
    assert not [key for key in metrics if key.startswith("seconds/")]
    assert there.data.tags["privacy"] == there.data.params["privacy"] == private.privacy_words != NO_DP
    assert there.data.params["privacy.epsilon"] == "3.0"
    assert same(to_tensorboard(run, tmp_path / "boards")[0], metrics)


def test_a_long_plan(run: Path, uri: str, make_plan: Callable[..., StudyPlan]) -> None:
    many = [f"category number {number} of many" for number in range(400)]
    create(run, make_plan(objective={"kind": "note-category", "categories": many}), "inprocess", None)
    _, there = to_mlflow(run, uri)
    whole = parameters(of(run))["objective.categories"]
    assert len(whole) > 6000 and there.data.params["objective.categories"] == whole[:6000]


def test_the_command_watches_to_the_end(
    run: Path, plan: StudyPlan, uri: str, command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    """While the study runs; with no name looked up, and no connection made."""
    run.mkdir(exist_ok=True)
    create(run, plan, "inprocess", None)
    watched = (
        "import sys\n"
        "def hook(event, given):\n"
        "    if event in ('socket.getaddrinfo', 'socket.connect', 'socket.gethostbyname'):\n"
        "        print('LOOKED UP', event, given, file=sys.stderr)\n"
        "sys.addaudithook(hook)\n"
        "import fednotes\n"
        "fednotes.main()\n"
    )
    plain = {key: value for key, value in environment.items() if key not in ("CI", "PYTEST_CURRENT_TEST")}
    boards = tmp_path / "boards"
    given = ["mirror", str(run), "--watch", "--json", "--mlflow", uri, "--tensorboard", str(boards)]
    process = subprocess.Popen(
        [sys.executable, "-c", watched, *given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=plain,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["state"] == "waiting" and first["rounds"] == [] and first["values"] == 0
    study(run, plan).run()
    seen = json.loads(process.stdout.readline())
    while not seen["values"]:
        seen = json.loads(process.stdout.readline())
    assert seen["state"] == "running" and seen["rounds"][0] == 0
    Recorder(*opened(run)).end(example_summary(), None)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and errors == ""
    assert {json.loads(line)["sink"] for line in rest.splitlines()} == {"mlflow", "tensorboard"}
    assert same(read_boards(boards)[0], expected(of(run))) and same(read_mlflow(uri)[0], expected(of(run)))


class NotMlflow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def test_what_goes_wrong_has_a_next_step(
    finished: Path, tmp_path: Path, fednotes: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.db").write_text("no database " * 100)
    record = of(finished)
    server = HTTPServer(("127.0.0.1", 0), NotMlflow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: TensorBoardSink(tmp_path / "file" / "boards", record), "unwritable"),
        (lambda: MlflowSink(f"sqlite:///{tmp_path}/file/mlflow.db", record), "unwritable"),
        (lambda: MlflowSink(f"sqlite:///{tmp_path}/broken.db", record), "mlflow-refuses"),
        (lambda: MlflowSink(f"http://user:pass-word@127.0.0.1:{server.server_port}", record), "mlflow-refuses"),
        (lambda: MlflowSink("http://user:pass-word@127.0.0.1:9", record), "mlflow-unreachable"),
        *[(lambda at=at: MlflowSink(at, record), "mlflow-uri") for at in ("", "mlruns", "sqlite://", "ftp://x")],  # type: ignore[misc]
    ]
    for do, code in cases:
        with pytest.raises(FednotesError) as caught:
            do()
        assert caught.value.code == code and caught.value.next_step and "pass-word" not in str(caught.value)
    server.shutdown()
    nowhere = fednotes("mirror", finished)
    assert nowhere.returncode == 2 and "error (usage)" in nowhere.stderr and "--tensorboard" in nowhere.stderr
    no_run = fednotes("mirror", tmp_path, "--tensorboard", "boards")
    assert no_run.returncode == 2 and "error (no-record)" in no_run.stderr


def test_a_server_that_goes_away_is_waited_for(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second and the third write fail; nothing is lost or told twice."""
    monkeypatch.setattr(follow_module, "_AWAY", 0.01)
    database, study_id = opened(finished)
    recorder = Recorder(database, study_id)
    recorder(Event("began", 3))  # resumed: it runs again
    boards, writes = TensorBoardSink(tmp_path / "boards", of(finished)), []

    class Failing:
        def write(self, record: StudyRecord) -> Written:
            writes.append(record.state)
            if len(writes) in (2, 3):
                raise MachineError("mlflow-unreachable", "It is away.", "Wait.")
            written = boards.write(record)
            if len(writes) == 1:
                recorder(Event("finished", 3))
            return written

    told: list[Written] = []
    away: list[MachineError] = []
    follow_module.follow(database, study_id, [Failing()], True, lambda _, new: told.append(new), away.append)
    assert writes == ["running", "finished", "finished", "finished"] and len(away) == 2
    assert same(read_boards(tmp_path / "boards")[0], expected(of(finished)))
    boards.close()
    monkeypatch.setattr(boards, "write", Failing().write)
    writes[:] = ["running"]
    with pytest.raises(MachineError):  # one that was never there is not waited for
        follow_module.follow(database, study_id, [boards], True, lambda _, new: told.append(new), away.append)


def test_two_at_once(finished: Path, tmp_path: Path) -> None:
    first = TensorBoardSink(tmp_path, of(finished))
    with pytest.raises(FednotesError) as caught:
        TensorBoardSink(tmp_path, of(finished))
    assert caught.value.code == "mirror-busy"
    first.close()
    TensorBoardSink(tmp_path, of(finished)).close()


@pytest.mark.parametrize(("package", "option"), [("tensorboard", "boards"), ("mlflow", "sqlite:///mlflow.db")])
def test_without_its_package(finished: Path, tmp_path: Path, package: str, option: str) -> None:
    """An import that fails, as where the extra was not installed."""
    without = f"import sys; sys.modules[{package!r}] = None; import fednotes; fednotes.main()"
    said = subprocess.run(
        [sys.executable, "-c", without, "mirror", str(finished), f"--{package}", option],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert said.returncode == 3 and f"error ({package}-missing)" in said.stderr
    assert f'extra "{package}"' in said.stderr and "Traceback" not in said.stderr

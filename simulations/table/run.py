"""Run a table: cell by cell, each kept as it is finished, so that a killed table goes on with the next."""

import platform
import shutil
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import client.app
import server.app
from client.notes.split import seeded_key
from client.notes.store import NoteStore, prepare
from client.site import open_site, site_facts
from common.encoder import load_encoder, load_tokenizer
from common.errors import InputError
from common.files import explained, write_text
from common.messages import Tensors
from common.results import POOLED, ModelName
from common.table import Consumed, Table
from common.trainable import plain_tensors
from server.base import base_tensors
from server.display import Display
from server.report import write_table_report
from server.run_folder import REPORT_FILE
from simulations.run_folder import Simulation, new_run
from simulations.setup import Wish, check_base, set_up, site_log
from simulations.table.cells import STUDIES, Model, Place, train_cell
from simulations.table.differences import Row, differences
from simulations.table.plan import RESULTS_FILE, TABLE_FILE, TablePlan, load_table
from simulations.table.score import Scored, TableScorer

_UNTRAINED: tuple[ModelName, ...] = ("majority", "tf-idf", "base")


def run_table(table: TablePlan, wish: Wish, display: Display) -> Simulation:
    """Set up a table and carry it to its end. Raises FednotesError."""
    check_base(table.common)
    run = new_run(table.common, wish.out)
    with run.locked():
        try:
            with explained(run.path):
                set_up(run, table.common, wish, display, private=table.private)
                write_text(run.path / TABLE_FILE, table.toml())
        except BaseException:
            run.abandon()
            raise
        with site_log(run):
            _carry_on(run, table, display)
    return run


def resume_table(path: Path, display: Display) -> Simulation:
    """Carry a table that stopped to its end. Raises FednotesError; a finished one is left as it is."""
    run = Simulation(path)
    _ = run.setup  # before the lock: a folder that is no run is not touched
    with run.locked():
        before = results(run)
        if before is None or before.status != "finished":
            with site_log(run):
                _carry_on(run, load_table(path / TABLE_FILE), display)
    return run


def results(run: Simulation) -> Table | None:
    """What a table has so far; None before its first cell."""
    try:
        return Table.model_validate_json((run.path / RESULTS_FILE).read_text("utf-8"))
    except OSError:
        return None


def _carry_on(run: Simulation, table: TablePlan, display: Display) -> None:
    began = time.perf_counter()
    before = results(run)
    seconds = before.seconds if before else 0.0
    setup, common = run.setup, table.common
    tokenizer = load_tokenizer(common.encoder.base)
    source = prepare(setup.notes, tokenizer, seeded_key(common.study.seed), setup.cache)
    if source.digest != setup.digest:
        raise InputError("notes-changed", "The notes are not those that the run began with.", "Start a new run.")
    notes = {name: open_site(folder).notes(tokenizer) for name, folder in run.sites.items()}
    server.app.on_event, client.app.on_step = display.event, display.step
    scorer = TableScorer(table, notes, source)
    encoder = load_encoder(common.encoder.base, common.study.seed)
    parameters = sum(p.numel() for p in encoder.tensors().values())
    done: dict[Row, dict[int, Scored]] = {}
    places = _places(run, table)
    for number, (place, name) in enumerate(places, 1):
        scored = scorer.kept(place)
        fresh = scored is None
        if scored is None:
            display.cells(_progress(places, done), f"{place.arm}, {place.setting}, seed {place.seed}")
            model = _model(run, table, place, name, notes, display)
            display.say(f"Cell {number} of {len(places)}: scoring {place.arm}, {place.setting}, seed {place.seed}")
            scored = scorer.score(place, name, model, encoder)
        shutil.rmtree(place.folder / STUDIES, ignore_errors=True)  # only the training of the cell needed them
        done.setdefault((place.arm, place.setting), {})[place.seed] = scored
        finished = number == len(places)
        if fresh or finished:
            now = _table(run, table, scorer, notes, done, len(places), finished, parameters)
            now = now.model_copy(update={"seconds": seconds + time.perf_counter() - began})
            write_text(run.path / RESULTS_FILE, now.model_dump_json(indent=2))
            write_table_report(now, run.path / REPORT_FILE)


def _places(run: Simulation, table: TablePlan) -> list[tuple[Place, ModelName]]:
    """Every cell in the order in which it is made: an arm's start before the arm, training alone before federation."""
    places: list[tuple[Place, ModelName]] = [
        (Place(run.path, name, "as it is", table.common.study.seed), name) for name in _UNTRAINED
    ]
    for seed in table.table.seeds:
        for arm in table.arms:
            places += [(Place(run.path, arm.name, setting, seed), setting) for setting in table.table.settings]
    return places


def _model(
    run: Simulation, table: TablePlan, place: Place, name: ModelName, notes: dict[str, NoteStore], display: Display
) -> Model | None:
    if name in ("majority", "tf-idf"):
        return None
    if name == "base":
        return Model({POOLED: _base(table)}, Consumed())
    arm = next(arm for arm in table.arms if arm.name == place.arm)
    return train_cell(run, table, arm, place, notes, display)


def _base(table: TablePlan) -> Tensors:
    return plain_tensors(table.common, base_tensors(table.common))


def _progress(places: list[tuple[Place, ModelName]], done: dict[Row, dict[int, Scored]]) -> dict[Row, tuple[int, int]]:
    """Finished and planned seeds of each row."""
    planned: dict[Row, int] = {}
    for place, _ in places:
        planned[place.arm, place.setting] = planned.get((place.arm, place.setting), 0) + 1
    return {row: (len(done.get(row, {})), count) for row, count in planned.items()}


def _table(
    run: Simulation,
    table: TablePlan,
    scorer: TableScorer,
    notes: dict[str, NoteStore],
    done: dict[Row, dict[int, Scored]],
    planned: int,
    finished: bool,
    parameters: int,
) -> Table:
    packages = ("fednotes", "flwr", "torch", "transformers", "scikit-learn", "numpy", "peft")
    setup, common = run.setup, table.common
    return Table(
        study=common.study.name,
        status="finished" if finished else "running",
        privacy=table.privacy_words,
        plan_hash=table.hash(),
        started=setup.started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        base=common.encoder.base,
        parameters=parameters,
        rounds=common.federation.rounds,
        token_budget=common.training.tokens_per_round,
        sites=[site_facts(name, store, common) for name, store in notes.items()],
        left_out_sites=setup.left_out_sites,
        arms=table.rows(),
        seeds=table.table.seeds,
        planned=planned,
        cells=[scored.cell for of_row in done.values() for scored in of_row.values()],
        differences=differences(table, scorer, done),
        not_scored=scorer.not_scored,
    )

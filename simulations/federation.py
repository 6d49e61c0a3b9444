"""A study over virtual sites, on one machine: from a plan and notes to a folder of results.

Every stage leaves what it made on disk, so that a run that was killed goes on where it stood.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

import client.app
import server.app
from client.evaluation.scorer import Scorer
from client.notes.split import seeded_key
from client.notes.store import NoteStore, prepare
from client.site import open_site, site_facts
from client.units import count_units
from common.encoder import Encoder, load_tokenizer
from common.errors import InputError, StudyError
from common.files import explained
from common.messages import Tensors
from common.plan import StudyPlan
from common.results import ModelName, SiteFacts, Summary
from common.trainable import plain_tensors
from server.base import base_tensors, set_shared_categories
from server.checkpoint import State, load_checkpoint
from server.display import Display
from server.events import Event
from server.record.database import Database
from server.record.place import create, find
from server.record.recorder import Recorder, recording
from server.report import write_report
from server.results import write_model
from server.run_folder import REPORT_FILE
from server.versions import versions
from simulations.baselines import centralised, local_only
from simulations.engines import ENGINES
from simulations.run_folder import Simulation, new_run
from simulations.scoring import embedding_map, scoring_encoder
from simulations.setup import Wish, check_base, set_up, site_log


def simulate(plan: StudyPlan, wish: Wish, display: Display) -> Simulation:
    """Set up a run and carry it to its end. Raises FednotesError."""
    check_base(plan)
    if wish.database:
        Database(wish.database).close()  # one that cannot be had is found now
    run = new_run(plan, wish.out)
    with run.locked():
        try:
            with explained(run.path):
                set_up(run, plan, wish, display, private=plan.privacy is not None)
        except BaseException:
            run.abandon()
            raise
        create(run.path, plan, wish.engine, wish.database)
        _carry_on(run, display)
    return run


def resume(path: Path, display: Display) -> Simulation:
    """Carry a run that stopped to its end. Raises FednotesError; a finished run is left as it is."""
    run = Simulation(path)
    _ = run.setup  # before the lock: a folder that is no run is not touched
    with run.locked():
        summary = run.summary() if (path / REPORT_FILE).exists() else None
        if summary is None or summary.status != "finished":
            if find(run.path) is None:  # it ended before its record began
                create(run.path, run.plan, run.setup.engine, None)
            _carry_on(run, display)
    return run


def _carry_on(run: Simulation, display: Display) -> None:
    with site_log(run), recording(run.path) as record:
        assert record is not None
        _to_its_end(run, display, record)


def _to_its_end(run: Simulation, display: Display, record: Recorder) -> None:
    """All that is still to do: rounds, baselines, scores, model, summary, report."""
    began = time.perf_counter()
    plan, setup, sites = run.plan, run.setup, run.sites
    tokenizer = load_tokenizer(plan.encoder.base)
    if prepare(setup.notes, tokenizer, seeded_key(plan.study.seed), setup.cache).digest != setup.digest:
        raise InputError("notes-changed", "The notes are not those that the run began with.", "Start a new run.")
    opened = {name: open_site(folder) for name, folder in sites.items()}
    notes = {name: site.notes(tokenizer) for name, site in opened.items()}
    display.study(plan, list(sites), "Federation")

    def on_event(event: Event) -> None:
        record(event)
        display.event(event)

    server.app.on_event, client.app.on_step = on_event, display.step
    stopped: StudyError | None = None
    try:
        ENGINES[setup.engine](server.app.app, client.app.app, run.path, list(sites.values()))
    except StudyError as error:
        stopped = error
    kept = load_checkpoint(run.checkpoints, plan.hash())
    if kept is None:
        assert stopped is not None  # a run without an error has a checkpoint
        record.stop(stopped)
        raise stopped
    state, shared, _ = kept
    tensors = plain_tensors(plan, shared)
    encoder = scoring_encoder(plan)
    scorer = Scorer(plan, opened, notes, encoder, run.path / "scores")
    others: list[ModelName] = []
    if stopped is None:
        server.app.on_event = display.event  # the baselines' rounds are none of the study's
        record(Event("phase", state.round, text="scoring at the sites"))
        others = _score(run, scorer, notes, {site.name for site in state.sites}, tensors, display)
        display.say("Writing the model and the report")
    set_shared_categories(encoder, plan)  # a baseline may have left a site's own head
    summary = _summary(run, state, scorer, others, notes, encoder, shared, stopped, time.perf_counter() - began)
    if stopped is None:
        encoder.load(tensors)
        write_model(run, encoder, summary)
    method = setup.embedding_map
    shown = embedding_map(scorer, tensors, method) if method and stopped is None else None
    run.write_summary(summary)
    write_report(summary, run.path / REPORT_FILE, shown)
    record.end(summary, stopped)
    if stopped is not None:
        raise stopped


def _score(
    run: Simulation,
    scorer: Scorer,
    notes: dict[str, NoteStore],
    took_part: set[str],
    federated: Tensors,
    display: Display,
) -> list[ModelName]:
    """Score every model at every site; returns what the federated encoder is compared with.

    Baselines are of the sites that took part: what left one out of the federation would stop it alone, too.
    """
    plan, baselines = run.plan, run.setup.baselines
    pooled: Tensors | None = None
    if "centralised" in baselines:
        display.study(plan, ["(all sites)"], "Baseline: all notes in one place")
        together = centralised(run, {name: store for name, store in notes.items() if name in took_part})
        pooled = plain_tensors(plan, together)
    base = plain_tensors(plan, base_tensors(plan))
    for name, store in notes.items():
        display.say(f"Scoring at {name}")
        scorer.score("majority", name, None)
        scorer.score("tf-idf", name, None)
        scorer.score("base", name, base)
        scorer.score("federated", name, federated)
        if pooled is not None:
            scorer.score("centralised", name, pooled)
        if "local-only" in baselines and name in took_part:
            display.study(plan, [name], f"Baseline: {name} alone")
            alone = plain_tensors(plan, local_only(run, name, store))
            display.say(f"Scoring at {name}")
            scorer.score("local-only", name, alone)
    return ["base", *baselines, "tf-idf"]


def _facts(name: str, notes: NoteStore, plan: StudyPlan) -> SiteFacts:
    facts = site_facts(name, notes, plan)
    return facts if plan.privacy is None else facts.model_copy(update={"units": count_units(notes, plan.privacy.unit)})


def _summary(
    run: Simulation,
    state: State,
    scorer: Scorer,
    others: list[ModelName],
    notes: dict[str, NoteStore],
    encoder: Encoder,
    shared: Tensors,
    stopped: StudyError | None,
    seconds: float,
) -> Summary:
    plan, setup = run.plan, run.setup
    return Summary(
        study=plan.study.name,
        status="stopped" if stopped else "finished",
        message=str(stopped) if stopped else "",
        privacy=plan.privacy_words,
        epsilon_cap=plan.privacy.epsilon if plan.privacy else None,
        plan_hash=plan.hash(),
        objective=plan.objective.kind,
        seed=plan.study.seed,
        engine=setup.engine,
        started=setup.started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        versions=versions(),
        base=plan.encoder.base,
        parameters=sum(p.numel() for p in encoder.tensors().values()),
        shared_parameters=sum(value.size for value in shared.values()),
        sites=[_facts(name, store, plan) for name, store in notes.items()],
        left_out_sites=setup.left_out_sites | state.left_out_sites,
        planned_rounds=plan.federation.rounds,
        rounds=state.rounds,
        scores=scorer.scores,
        comparisons=scorer.comparisons(others),
        not_scored=scorer.not_scored,
        memorisation=state.memorisation,
    )

"""A study over virtual sites, on one machine: from a plan and notes to a folder of results.

Every stage leaves what it made on disk, so that a run that was killed goes on where it stood.
"""

import contextlib
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import client.app
import server.app
from client.notes.source import Columns, NotesSource
from client.notes.store import NoteStore, default_cache, prepare
from client.site import SiteConfig, open_site, site_facts
from common.encoder import Encoder, load_encoder, load_tokenizer, sequence_limit
from common.errors import InputError, StudyError
from common.files import explained, new_folder
from common.messages import Tensors
from common.plan import StudyPlan
from common.results import ModelName, Summary
from server.checkpoint import State, load_checkpoint
from server.report import write_report
from simulations.baselines import centralised, local_only
from simulations.display import Display
from simulations.engines import ENGINES
from simulations.partition import at_random, by_column, slug, write_site
from simulations.run_folder import (
    MODEL_FOLDER,
    REPORT_FILE,
    SITE_LOG,
    SITES,
    SYNTHETIC_FILE,
    Baseline,
    RunFolder,
    Setup,
    new_run,
)
from simulations.scoring import Scorer
from simulations.synthetic_notes import write_jsonl
from simulations.synthetic_notes.hospitals import NAMES as HOSPITALS

DEFAULT_SITES = 4


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line. `notes` None means the synthetic corpus."""

    notes: NotesSource | None = None
    sites: int | None = None
    engine: Literal["inprocess", "flower"] = "inprocess"
    baselines: Sequence[Baseline] = ()
    out: Path | None = None
    cache: Path | None = None
    embedding_map: bool = False


def simulate(plan: StudyPlan, wish: Wish, display: Display) -> RunFolder:
    """Set up a run and carry it to its end. Raises FednotesError."""
    check_base(plan)
    run = new_run(plan, wish.out)
    with run.locked():
        try:
            with explained(run.path):
                _set_up(run, plan, wish, display)
        except BaseException:
            run.abandon()
            raise
        with _site_log(run):
            _carry_on(run, display)
    return run


def resume(path: Path, display: Display) -> RunFolder:
    """Carry a run that stopped to its end. Raises FednotesError; a finished run is left as it is."""
    run = RunFolder(path)
    _ = run.setup  # before the lock: a folder that is no run is not touched
    with run.locked():
        if not (path / REPORT_FILE).exists() or run.summary().status != "finished":
            with _site_log(run):
                _carry_on(run, display)
    return run


@contextlib.contextmanager
def _site_log(run: RunFolder) -> Iterator[None]:
    """What a site logs, such as the details of a failure, goes to a file: a hospital's log is its own, too."""
    log = logging.getLogger("fednotes.site")
    with explained(run.path):
        handler = logging.FileHandler(run.path / SITE_LOG, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = True
        handler.close()


def check_base(plan: StudyPlan) -> None:
    """Raises InputError where the base cannot be had, or is shorter than the plan's sequences."""
    encoder = load_encoder(plan.encoder.base, plan.study.seed)
    if plan.encoder.max_length > (most := sequence_limit(encoder.model)):
        raise InputError(
            "plan-invalid",
            f"encoder.max_length = {plan.encoder.max_length}: {plan.encoder.base} reads at most {most} tokens.",
            f"Lower it to {most} or less.",
        )


def _set_up(run: RunFolder, plan: StudyPlan, wish: Wish, display: Display) -> None:
    display.say("Reading the notes")
    source = wish.notes
    if source is None:
        count = wish.sites or DEFAULT_SITES
        if count > len(HOSPITALS):
            raise InputError(
                "too-many-sites",
                f"--sites {count}: the synthetic notes have at most {len(HOSPITALS)} hospitals.",
                "Give fewer sites, or --notes.",
            )
        write_jsonl(run.path / SYNTHETIC_FILE, seed=plan.study.seed, hospitals=count)
        source = NotesSource(source=str((run.path / SYNTHETIC_FILE).resolve()), columns=Columns(site="site"))
    elif not source.is_database:  # the sites' files name it from their own folders
        source = source.model_copy(update={"source": str(Path(source.source).resolve())})
    cache = (wish.cache or default_cache()).resolve()
    key = _split_key(plan)
    notes = prepare(
        source,
        load_tokenizer(plan.encoder.base),
        key,
        cache,
        lambda stage, done: display.say(_STAGES[stage].format(done)),
    )
    if wish.notes is not None and wish.sites is not None:
        partition = at_random(notes, wish.sites, plan.study.seed)
    elif any(value is not None for value in notes.column("site")):
        partition = by_column(notes)
    else:
        partition = at_random(notes, wish.sites or DEFAULT_SITES, plan.study.seed)
    folders = {name: f"{SITES}/{slug(name)}" for name in partition.rows}
    for name, rows in partition.rows.items():
        config = SiteConfig(name=name, split_key=key.hex(), cache=cache, notes=source)
        write_site(run.path / folders[name], config, rows)
    setup = Setup(
        notes=source,
        synthetic=wish.notes is None,
        digest=notes.digest,
        engine=wish.engine,
        baselines=list(wish.baselines),
        embedding_map=wish.embedding_map or wish.notes is None,
        cache=cache,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        site_folders=folders,
        left_out_sites=partition.left_out,
    )
    run.begin(plan, setup)


def _carry_on(run: RunFolder, display: Display) -> None:
    """All that is still to do: rounds, baselines, scores, model, summary, report."""
    began = time.perf_counter()
    plan, setup, sites = run.plan, run.setup, run.sites
    tokenizer = load_tokenizer(plan.encoder.base)
    if prepare(setup.notes, tokenizer, _split_key(plan), setup.cache).digest != setup.digest:
        raise InputError("notes-changed", "The notes are not those that the run began with.", "Start a new run.")
    notes = {name: open_site(folder).notes(tokenizer) for name, folder in sites.items()}
    display.study(plan, list(sites), "Federation")
    server.app.on_event, client.app.on_step = display.event, display.step
    stopped: StudyError | None = None
    try:
        ENGINES[setup.engine](server.app.app, client.app.app, run.path, list(sites.values()))
    except StudyError as error:
        stopped = error
    kept = load_checkpoint(run.path / server.app.CHECKPOINTS, plan.hash())
    if kept is None:
        assert stopped is not None  # a run without an error has a checkpoint
        raise stopped
    state, tensors, _ = kept
    encoder = client.app.worker(plan.encoder.base, plan.study.seed).encoder
    scorer = Scorer(plan, notes, encoder, run.path / "scores")
    others: list[ModelName] = []
    if stopped is None:
        others = _score(run, scorer, notes, tensors, display)
        display.say("Writing the model and the report")
        encoder.load(tensors)
        with new_folder(run.path / MODEL_FOLDER) as scratch:
            encoder.save(scratch, plan.encoder.max_length)
    summary = _summary(run, state, scorer, others, notes, encoder, stopped, time.perf_counter() - began)
    shown = scorer.embedding_map(tensors) if setup.embedding_map and stopped is None else None
    run.write_summary(summary)
    write_report(summary, run.path / REPORT_FILE, shown)
    if stopped is not None:
        raise stopped


def _score(
    run: RunFolder, scorer: Scorer, notes: dict[str, NoteStore], federated: Tensors, display: Display
) -> list[ModelName]:
    """Score every model at every site; returns what the federated encoder is compared with."""
    plan, baselines = run.plan, run.setup.baselines
    pooled: Tensors | None = None
    if "centralised" in baselines:
        display.study(plan, ["(all sites)"], "Baseline: all notes in one place")
        pooled = centralised(run, notes)
    base = server.app.base_tensors(plan)
    for name, store in notes.items():
        display.say(f"Scoring at {name}")
        scorer.score("tf-idf", name, None)
        scorer.score("base", name, base)
        scorer.score("federated", name, federated)
        if pooled is not None:
            scorer.score("centralised", name, pooled)
        if "local-only" in baselines:
            display.study(plan, [name], f"Baseline: {name} alone")
            alone = local_only(run, name, store)
            display.say(f"Scoring at {name}")
            scorer.score("local-only", name, alone)
    return ["base", *baselines, "tf-idf"]


def _summary(
    run: RunFolder,
    state: State,
    scorer: Scorer,
    others: list[ModelName],
    notes: dict[str, NoteStore],
    encoder: Encoder,
    stopped: StudyError | None,
    seconds: float,
) -> Summary:
    plan, setup = run.plan, run.setup
    packages = ("fednotes", "flwr", "torch", "transformers", "scikit-learn", "numpy")
    return Summary(
        study=plan.study.name,
        status="stopped" if stopped else "finished",
        message=str(stopped) if stopped else "",
        plan_hash=plan.hash(),
        seed=plan.study.seed,
        engine=setup.engine,
        started=setup.started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        base=plan.encoder.base,
        parameters=sum(p.numel() for p in encoder.tensors().values()),
        shared_parameters=sum(p.numel() for p in encoder.shared(plan.federation.share).values()),
        sites=[site_facts(name, store, plan.encoder.max_length) for name, store in notes.items()],
        left_out_sites=setup.left_out_sites | state.left_out_sites,
        planned_rounds=plan.federation.rounds,
        rounds=state.rounds,
        scores=scorer.scores,
        comparisons=scorer.comparisons(others),
        not_scored=scorer.not_scored,
    )


def _split_key(plan: StudyPlan) -> bytes:
    """A simulation has no secret to keep: the study's seed keys the split of patients, so that it can be repeated."""
    return f"fednotes split {plan.study.seed}".encode()


_STAGES = {
    "read": "Reading the notes: {:,}",
    "compare": "Looking for copies: pass {}",
    "tokenise": "Tokenising the notes: {:,}",
}

"""How a run on one machine begins: what was asked for, the notes, and the virtual hospitals that have them."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from client.notes.source import Columns, NotesSource
from client.notes.split import seeded_key
from client.notes.store import default_cache, prepare
from client.site import Policy, SiteConfig
from client.tasks import Task
from common.encoder import load_encoder, load_tokenizer, sequence_limit
from common.errors import InputError
from common.files import explained
from common.plan import StudyPlan
from common.slug import slug
from server.display import Display
from simulations.partition import at_random, by_column, write_site
from simulations.run_folder import PUBLIC_FILE, SITE_LOG, SITES, SYNTHETIC_FILE, Baseline, Setup, Simulation
from simulations.synthetic_notes import write_jsonl
from simulations.synthetic_notes.hospitals import NAMES as HOSPITALS

DEFAULT_SITES = 4
_OTHER_NOTES = 1_000_003  # added to the seed: synthetic public text is none of the synthetic notes


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line. `notes` None means the synthetic corpus, and so does `public`, for
    studies that need public text; `database` (a URL) None means a record in the run's folder."""

    notes: NotesSource | None = None
    sites: int | None = None
    engine: Literal["inprocess", "flower"] = "inprocess"
    baselines: Sequence[Baseline] = ()
    out: Path | None = None
    cache: Path | None = None
    embedding_map: Literal["pca", "umap"] | None = None
    tasks: Sequence[Task] = ()
    public: NotesSource | None = None
    database: str | None = None


def check_base(plan: StudyPlan) -> None:
    """Raises InputError where the base cannot be had, or is shorter than the plan's sequences."""
    encoder = load_encoder(plan.encoder.base, plan.study.seed)
    if plan.encoder.max_length > (most := sequence_limit(encoder.model)):
        raise InputError(
            "plan-invalid",
            f"encoder.max_length = {plan.encoder.max_length}: {plan.encoder.base} reads at most {most} tokens.",
            f"Lower it to {most} or less.",
        )


def set_up(run: Simulation, plan: StudyPlan, wish: Wish, display: Display, private: bool) -> None:
    """Read the notes, share them out to virtual hospitals, and write what the run is to do. Raises FednotesError.

    Args:
        private: whether the sites train privately, and so may need public text.
    """
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
    key = seeded_key(plan.study.seed)
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
    public = _public_text(run, plan, wish) if private else None
    folders = {name: f"{SITES}/{slug(name)}" for name in partition.rows}
    for name, rows in partition.rows.items():
        config = SiteConfig(
            name=name,
            split_key=key.hex(),
            cache=cache,
            notes=source,
            tasks=list(wish.tasks),
            public=public,
            # All of it is on one machine anyway, with nobody to approve plans.
            policy=Policy(require_approval=False, release_embedding_space=True, release_uncovered=True),
        )
        write_site(run.path / folders[name], config, rows)
    setup = Setup(
        notes=source,
        digest=notes.digest,
        engine=wish.engine,
        baselines=list(wish.baselines),
        embedding_map=wish.embedding_map or ("pca" if wish.notes is None else None),
        cache=cache,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        site_folders=folders,
        left_out_sites=partition.left_out,
    )
    run.begin(plan, setup)


def _public_text(run: Simulation, plan: StudyPlan, wish: Wish) -> NotesSource:
    """What was given, else synthetic notes that no site has."""
    if wish.public is None:
        write_jsonl(run.path / PUBLIC_FILE, seed=plan.study.seed + _OTHER_NOTES, hospitals=DEFAULT_SITES)
        return NotesSource(source=str((run.path / PUBLIC_FILE).resolve()))
    if wish.public.is_database:
        return wish.public
    return wish.public.model_copy(update={"source": str(Path(wish.public.source).resolve())})


@contextlib.contextmanager
def site_log(run: Simulation) -> Iterator[None]:
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


_STAGES = {
    "read": "Reading the notes: {:,}",
    "compare": "Looking for copies: pass {}",
    "tokenise": "Tokenising the notes: {:,}",
}

"""What a site has: a name, notes, and a folder of its own for what stays there. Read from `site.toml`."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from client.notes.source import NotesSource
from client.objectives.usage import usage
from client.tasks import Progress, Task
from common.errors import InputError
from common.kit import host_and_port
from common.plan import StudyPlan
from common.results import SiteFacts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from client.notes.store import NoteStore

SITE_FILE = "site.toml"


class Policy(BaseModel):
    """What a site agrees to, beyond what any plan says: it can only be stricter. Vectors never leave, whatever stands
    here.

    `require_approval`: no study whose plan nobody here has approved (`fednotes site approve`), with the package that
    was installed then. Simulations have nobody to ask.
    `objectives`: those that may be trained.
    `max_rounds`: most that a study may plan.
    `release_embedding_space`: figures of the embedding space (`common.results.Space`) of its held-out notes leave,
    where the study's plan asks for them.
    `release_scores`: scores of the final encoder on tasks that the study's plan names leave (`common.scores`), where it
    asks for them; never a class's name.
    `release_approver`: the name of whoever approved a plan leaves with the approval's time and digest.
    `require_privacy`: no study without differential privacy.
    `unit`: "patient" refuses plans that protect single notes.
    `exact_clipping`: only plans that compute each unit alone (privacy.engine = "loop"), which is private whatever the
    weights that the coordinator sends.
    `max_epsilon`: most that all studies together may spend of the ledger.
    `release_uncovered`: with private training, exact counts of notes, held-out losses, figures of the embedding space
    and scores (those two where they are released) leave, too. No epsilon covers them: it is for simulations.
    `max_exposure`: bits; where any canary of the site is exposed to more, the site refuses the release. No study then
    that plants none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    require_approval: bool = True
    objectives: list[Literal["mlm", "declutr", "note-category"]] = ["mlm", "declutr", "note-category"]
    max_rounds: int | None = Field(None, ge=1)
    release_embedding_space: bool = False
    release_scores: bool = False
    release_approver: bool = False
    require_privacy: bool = False
    unit: Literal["patient", "note"] = "note"
    exact_clipping: bool = False
    max_epsilon: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    release_uncovered: bool = False
    max_exposure: float | None = Field(None, ge=0.0, allow_inf_nan=False)


class Coordinator(BaseModel):
    """Where a real site's coordinator is: its address as "host:port", the certificate authority to know it by, and the
    site's own private key. `max_hours_per_message` bounds the work on one request; `threads` are those that train, all
    cores by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    ca: Path
    key: Path
    max_hours_per_message: float = Field(24.0, gt=0.0, le=10_000.0)
    threads: int | None = Field(None, ge=1)

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        return host_and_port(value)


class SiteConfig(BaseModel):
    """The contents of `site.toml`.

    `split_key` (hex) keys the hash that splits patients; a site keeps it to itself. `rows` names a NumPy file of row
    numbers, for virtual hospitals that share one source. `public` is text that is no secret, for private contrastive
    training. Relative paths are relative to the file. Virtual sites have no coordinator.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100)
    split_key: str = Field(min_length=16, pattern=r"^([0-9a-f]{2})+$")
    cache: Path
    notes: NotesSource
    rows: Path | None = None
    min_notes: int = Field(20, ge=1)
    tasks: list[Task] = []
    public: NotesSource | None = None
    policy: Policy = Policy()
    coordinator: Coordinator | None = None

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, value: list[Task]) -> list[Task]:
        names = [task.name for task in value]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two tasks have the name {', '.join(repeated)}")
        return value


@dataclass(frozen=True)
class Site:
    """An opened site; `folder` holds `site.toml` and what the site keeps."""

    config: SiteConfig
    folder: Path

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def split_key(self) -> bytes:
        return bytes.fromhex(self.config.split_key)

    @property
    def cache(self) -> Path:
        return self.folder / self.config.cache

    @property
    def coordinator(self) -> Coordinator:
        """Where the site's coordinator is; paths from where the site is. Raises InputError `no-coordinator`."""
        found = self.config.coordinator
        if found is None:
            raise InputError(
                "no-coordinator",
                f"{self.folder / SITE_FILE} has no [coordinator].",
                "Read the coordinator's kit: fednotes site init.",
            )
        return found.model_copy(update={"ca": self.folder / found.ca, "key": self.folder / found.key})

    def notes(self, tokenizer: "PreTrainedTokenizerBase", progress: Progress | None = None) -> "NoteStore":
        """The site's notes, tokenised: from the cache where they are, else read, checked and cached now."""
        from client.notes.store import prepare

        store = prepare(self.config.notes, tokenizer, self.split_key, self.cache, progress)
        return store if self.config.rows is None else store.view(np.load(self.folder / self.config.rows))

    def public_notes(self, tokenizer: "PreTrainedTokenizerBase") -> "NoteStore | None":
        """The site's public text, prepared as its notes are; None where it has none."""
        from client.notes.store import prepare

        public = self.config.public
        return None if public is None else prepare(public, tokenizer, b"public text", self.cache)


def open_site(folder: Path) -> Site:
    """Open a site by its folder. Raises InputError that lists every violation of its `site.toml`."""
    return Site(open_site_file(folder / SITE_FILE), folder)


def open_site_file(path: Path) -> SiteConfig:
    """Read a `site.toml`. Raises InputError that lists every violation."""
    try:
        config = SiteConfig.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise InputError("site-missing", f"{path} cannot be read: {error.strerror}.", "Give a site's folder.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("site-invalid", f"{path} is not TOML: {error}.", "Mend the file.") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors(include_url=False)]
        raise InputError("site-invalid", f"{path} is not valid:\n" + "\n".join(lines), "Mend the file.") from None
    public = config.public and _beside(path, config.public)
    return config.model_copy(update={"notes": _beside(path, config.notes), "public": public})


def _beside(path: Path, source: NotesSource) -> NotesSource:
    """A source whose file is named from where `site.toml` is."""
    if source.is_database:
        return source
    return source.model_copy(update={"source": str(path.parent / source.source)})


def private_facts(facts: SiteFacts, units: int, policy: Policy) -> SiteFacts:
    """What a site says of itself to a private study: how many units train; the rest where its policy releases it."""
    if policy.release_uncovered:
        return facts.model_copy(update={"units": units})
    counts = {name: 0 for name, value in facts if isinstance(value, int)}
    return facts.model_copy(update=counts | {"units": units})


def site_facts(name: str, notes: "NoteStore", plan: StudyPlan) -> SiteFacts:
    """What a site brings to a study, in counts."""
    splits = {split: len(notes.split_indices(split)) for split in ("train", "dev", "test")}
    usable = np.concatenate([notes.split_indices(split) for split in ("train", "dev", "test")])
    tokens = int(np.minimum(notes.lengths[usable], plan.encoder.max_length - 2).sum()) + 2 * len(usable)
    use = usage(plan, notes.lengths[notes.split_indices("train")])
    return SiteFacts(
        name=name,
        **splits,
        set_aside=len(notes) - len(usable),
        tokens=tokens,
        whole=use.whole,
        shortened=use.shortened,
        too_short=use.too_short,
    )

"""The messages between coordinator and site, as types; the only file that knows Flower's record keys.

Three exchanges: `query` (who are you, and what do you run), `train` (shared tensors down, an update up) and `evaluate`
(shared tensors down, a held-out loss up; figures of the embedding space, too, where the site's policy releases them). A
plan travels as its TOML; weights as float32. Nothing else travels.
"""

import io
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from common.errors import FednotesError
from common.plan import StudyPlan, parse_plan, plan_to_toml
from common.plan_sections import Privacy
from common.results import PrivacySpent, SiteFacts, Space

ARRAYS, CONFIG, METRICS, WEIGHT = "arrays", "config", "metrics", "num-examples"
DETAILS = "details"  # numbers that Flower's strategies should not average
PARTS = {"mlm": (), "declutr": ("contrastive", "mlm"), "note-category": ("category", "mlm")}  # of an objective's loss
SITE_ERROR = 1000  # Flower's own error codes are below 10

Tensors = dict[str, np.ndarray]


class BadReply(Exception):
    """A reply that cannot enter a round; the text is the reason that the record names."""


@dataclass(frozen=True)
class Request:
    """What a site is asked to do: the plan, the run (hex) and its round, and the shared tensors as they stand."""

    plan: StudyPlan
    run: str
    round: int
    arrays: Tensors
    proximal_mu: float


@dataclass(frozen=True)
class TrainReply:
    """What a site returns from training; `notes` (its training notes) weighs it in the average.

    With private training every site weighs 1, tokens and seconds are withheld (0), and the loss has noise or is None.
    """

    notes: int
    steps: int
    tokens: int
    loss: float | None
    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    privacy: PrivacySpent | None = None


@dataclass(frozen=True)
class EvaluateReply:
    """A held-out loss in nats, its parts, and on how much it stands."""

    loss: float
    notes: int
    tokens: int
    parts: dict[str, float] = field(default_factory=dict)
    space: Space | None = None


def to_arrays(tensors: Tensors) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value, order="C")) for name, value in tensors.items()})


def from_arrays(record: ArrayRecord) -> Tensors:
    """Read-only views of the bytes that came; Flower's own `Array.numpy` would copy them. Raises ValueError."""
    return {name: _view(array) for name, array in record.items()}


def _view(array: Array) -> np.ndarray:
    file = io.BytesIO(array.data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an array of numbers")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    flat = np.frombuffer(array.data, dtype, offset=file.tell())  # refuses Python objects
    return flat.reshape(shape, order="F" if fortran else "C")


def request_config(plan: StudyPlan, run: str) -> ConfigRecord:
    """The config of every request; Flower's strategies add the round (and FedProx its mu)."""
    return ConfigRecord({"plan": plan_to_toml(plan), "version": version("fednotes"), "run": run})


def query_content(plan: StudyPlan, run: str) -> RecordDict:
    return RecordDict({CONFIG: request_config(plan, run)})


def read_plan(message: Message) -> StudyPlan:
    """The plan of any request. Raises FednotesError where versions differ or the plan is not valid."""
    config = message.content.config_records[CONFIG]
    theirs, ours = str(config["version"]), version("fednotes")
    if theirs != ours:
        raise FednotesError(
            "version-differs", f"The coordinator runs fednotes {theirs}, this site {ours}.", "Install the same."
        )
    return parse_plan(str(config["plan"]))


def read_run(message: Message) -> str:
    """The id of the run. Raises FednotesError where it is not 32 hex digits: it becomes part of file names."""
    run = str(message.content.config_records[CONFIG].get("run"))
    if not re.fullmatch(r"[0-9a-f]{32}", run):
        raise FednotesError("run-invalid", "The coordinator's request names no run.", "Is its version the same?")
    return run


def read_request(message: Message) -> Request:
    config = message.content.config_records[CONFIG]
    mu = config.get("proximal-mu", 0.0)
    assert isinstance(mu, (int, float))
    number = config["server-round"]
    assert isinstance(number, int)
    arrays = from_arrays(message.content.array_records[ARRAYS])
    return Request(read_plan(message), read_run(message), number, arrays, float(mu))


def facts_reply(facts: SiteFacts, message: Message) -> Message:
    return Message(RecordDict({CONFIG: ConfigRecord(facts.model_dump(exclude_none=True))}), reply_to=message)


def train_reply(reply: TrainReply, tensors: Tensors, message: Message) -> Message:
    details = _details(reply.parts, None)
    for name, value in (reply.privacy.model_dump() if reply.privacy else {}).items():
        details[f"privacy-{name}"] = value
    content = RecordDict({ARRAYS: to_arrays(tensors), METRICS: _metrics(reply), DETAILS: details})
    return Message(content, reply_to=message)


def evaluate_reply(reply: EvaluateReply, message: Message) -> Message:
    content = RecordDict({METRICS: _metrics(reply), DETAILS: _details(reply.parts, reply.space)})
    return Message(content, reply_to=message)


def _metrics(reply: TrainReply | EvaluateReply) -> MetricRecord:
    left = ("parts", "space", "privacy")
    values = {name: value for name, value in asdict(reply).items() if name not in left and value is not None}
    return MetricRecord({WEIGHT if name == "notes" else name: value for name, value in values.items()})


def _details(parts: dict[str, float], space: Space | None) -> ConfigRecord:
    figures = space.model_dump(exclude_none=True) if space else {}
    record = ConfigRecord()
    for name, value in parts.items():
        record[f"part-{name}"] = value
    for name, value in figures.items():
        record[f"space-{name}"] = float(value)
    return record


def error_reply(code: str, message: Message) -> Message:
    """Only the code of an error leaves a site: its text may hold a path, or worse."""
    return Message(Error(SITE_ERROR, code), reply_to=message)


def read_facts(message: Message) -> SiteFacts:
    """Raises BadReply."""
    _refuse_error(message)
    try:
        return SiteFacts.model_validate(dict(message.content.config_records[CONFIG]))
    except (KeyError, ValueError):
        raise BadReply("its description is malformed") from None


def read_train_reply(
    message: Message, expected: dict[str, tuple[int, ...]], most_notes: int, plan: StudyPlan
) -> tuple[TrainReply, Tensors]:
    """A checked reply: the expected names and shapes, float32, finite, and a weight of 1 to `most_notes` notes; with
    private training a weight of 1, and what was spent, which is not more than the plan's epsilon.

    Raises BadReply.
    """
    _refuse_error(message)
    content = message.content
    if set(content.array_records) != {ARRAYS} or set(content.metric_records) != {METRICS}:
        raise BadReply("its records are not one of arrays and one of metrics")
    spent = _read_privacy(content, plan.privacy)
    parts, _ = _read_details(content, plan.objective.kind)
    record = content.array_records[ARRAYS]
    if wrong := set(record) ^ set(expected):
        raise BadReply(f"wrong keys: {len(wrong)} tensors are missing or unknown, such as {min(wrong)[:80]!r}")
    tensors: Tensors = {}
    for name, shape in expected.items():
        try:
            value = _view(record[name])
        except Exception:
            raise BadReply(f"tensor {name} cannot be read") from None
        if value.shape != shape:
            raise BadReply(f"wrong shape: tensor {name} has {value.shape}, not {shape}")
        if value.dtype != np.float32:
            raise BadReply(f"wrong type: tensor {name} is {value.dtype}, not float32")
        if not np.isfinite(value).all():
            raise BadReply(f"not finite: tensor {name} holds NaN or infinity")
        tensors[name] = value
    names = {WEIGHT, "steps", "tokens", "loss", "seconds"}
    if plan.privacy is not None and (not plan.privacy.release_loss or "loss" not in content.metric_records[METRICS]):
        names.remove("loss")  # noise may have drowned it
    values = _numbers(content.metric_records[METRICS], names)
    most = most_notes if plan.privacy is None else 1
    if not 1 <= values[WEIGHT] <= most:
        raise BadReply(f"its number of notes is {values[WEIGHT]:g}, not 1 to {most} as it said before")
    reply = TrainReply(
        int(values[WEIGHT]),
        int(values["steps"]),
        int(values["tokens"]),
        values.get("loss"),
        values["seconds"],
        parts,
        spent,
    )
    return reply, tensors


def _read_privacy(content: RecordDict, plan: Privacy | None) -> PrivacySpent | None:
    """What a site says that it has spent; it leaves the details. Raises BadReply."""
    details = content.config_records.get(DETAILS)
    said = {name: details.pop(name) for name in list(details or ()) if name.startswith("privacy-")} if details else {}
    if plan is None and not said:
        return None
    try:
        spent = PrivacySpent.model_validate({name.removeprefix("privacy-"): value for name, value in said.items()})
    except ValueError:
        raise BadReply("what it says of its privacy is missing or malformed") from None
    if plan is None or spent.unit != plan.unit or spent.delta > plan.delta:
        raise BadReply("its privacy is not that of the plan")
    if plan.epsilon is not None and not spent.epsilon <= plan.epsilon:
        raise BadReply(f"it has spent epsilon {spent.epsilon:.3f}, more than the plan's {plan.epsilon:g}")
    return spent


def put_in_order(message: Message, names: Iterable[str]) -> None:
    """Order a reply's tensors by `names`, for some of Flower's strategies go by position."""
    record = message.content.array_records[ARRAYS]
    message.content[ARRAYS] = ArrayRecord({name: record[name] for name in names})


def read_evaluate_reply(message: Message, objective: str) -> EvaluateReply:
    """Raises BadReply."""
    _refuse_error(message)
    if set(message.content.metric_records) != {METRICS}:
        raise BadReply("its records are not one of metrics")
    values = _numbers(message.content.metric_records[METRICS], {WEIGHT, "loss", "tokens"})
    parts, space = _read_details(message.content, objective)
    return EvaluateReply(values["loss"], int(values[WEIGHT]), int(values["tokens"]), parts, space)


def _read_details(content: RecordDict, objective: str) -> tuple[dict[str, float], Space | None]:
    if set(content.config_records) != {DETAILS}:
        raise BadReply("its details are missing or unknown")
    known = {f"part-{name}" for name in PARTS[objective]} | {f"space-{name}" for name in Space.model_fields}
    values: dict[str, float] = {}
    for name, value in content.config_records[DETAILS].items():
        if name not in known or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise BadReply("its details are not the expected numbers")
        values[name] = float(value)
    parts = {name.removeprefix("part-"): value for name, value in values.items() if name.startswith("part-")}
    figures = {name.removeprefix("space-"): value for name, value in values.items() if name.startswith("space-")}
    try:
        return parts, Space.model_validate(figures) if figures else None
    except ValueError:
        raise BadReply("its figures of the embedding space are malformed") from None


def _refuse_error(message: Message) -> None:
    if message.has_error():
        code, reason = message.error.code, message.error.reason or ""
        # Only a code is words that we wrote; any other text could carry what a site must not say.
        if code == SITE_ERROR and re.fullmatch(r"[a-z]{1,20}(-[a-z]{1,20}){0,4}", reason):
            raise BadReply(f"the site reports {reason}")
        raise BadReply(f"it failed (Flower error {code})")


def _numbers(record: MetricRecord, names: set[str]) -> dict[str, float]:
    if set(record) != names:
        raise BadReply("its metrics are not the expected ones")
    values = {}
    for name, value in record.items():
        if isinstance(value, list) or not math.isfinite(value):
            raise BadReply(f"its {name} is not a finite number")
        values[name] = float(value)
    return values

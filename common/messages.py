"""The messages between coordinator and site, as types; the file that knows Flower's record keys.

Five exchanges: `query` (who are you, and what do you run), `train` (shared tensors down, an update up), `evaluate`
(shared tensors down, a held-out loss up; figures of the embedding space, too, where the site's policy releases them)
and, once at the end, the memorisation check (common/memorisation.py) and scores (common/scores.py). A plan travels as
its TOML; weights as the plan's `wire` says (common/wire.py). Nothing else travels.
"""

import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from common import wire
from common.errors import FednotesError
from common.package import package_digest
from common.plan import StudyPlan, parse_plan, plan_to_toml
from common.plan_sections import Privacy
from common.results import PrivacySpent, SiteFacts, Space
from common.wire import Tensors

ARRAYS, CONFIG, METRICS, WEIGHT = "arrays", "config", "metrics", "num-examples"
HELD = "held"  # in place of the shared tensors: the digest of those that the site was sent last
DETAILS = "details"  # numbers that Flower's strategies should not average
PARTS = {"mlm": (), "declutr": ("contrastive", "mlm"), "note-category": ("category", "mlm")}  # of an objective's loss
SITE_ERROR = 1000  # Flower's own error codes are below 10
_LOST = (3, 4, 5)  # those of a node, or a message, that is not there any more


class BadReply(Exception):
    """A reply that cannot enter a round; the text is the reason that the record names, `code` what it is one of."""

    def __init__(self, text: str, code: str = "reply-invalid") -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Request:
    """What a site is asked to do: the plan, the run (hex) and its round, and the shared tensors as float32."""

    plan: StudyPlan
    run: str
    round: int
    arrays: Tensors
    proximal_mu: float


@dataclass(frozen=True)
class TrainReply:
    """What a site returns from training; `notes` weighs it in the average: its training notes, or the share of them for
    which its time sufficed (training.seconds_per_round).

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


def packed(tensors: Tensors) -> ArrayRecord:
    """Tensors of one number format end to end in one array, whose key says in JSON what lies where in it.

    As they travel: Flower asks its server twice for each array, and a hundred small ones take longer than their bytes.
    """
    layout = json.dumps([[name, value.shape] for name, value in tensors.items()])
    return ArrayRecord({layout: Array(np.concatenate([value.ravel() for value in tensors.values()]))})


def unpacked(record: ArrayRecord) -> Tensors:
    """Read-only views of the bytes that came. Raises ValueError where it is no such array."""
    if len(record) != 1:
        raise ValueError("not one array")
    ((key, array),) = record.items()
    flat, tensors, at = _view(array), {}, 0
    try:
        layout = [(str(name), tuple(int(size) for size in shape)) for name, shape in json.loads(key)]
    except TypeError:
        raise ValueError("no layout") from None
    for name, shape in layout:
        if min(shape, default=0) < 0 or name in tensors:
            raise ValueError("no layout")
        size = math.prod(shape)
        tensors[name] = flat[at : at + size].reshape(shape)
        at += size
    if flat.ndim != 1 or at != flat.size:
        raise ValueError("the layout is of another array")
    return tensors


def to_arrays(tensors: Tensors) -> ArrayRecord:
    """Tensors one by one, as Flower's strategies take them."""
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
    said = {"plan": plan_to_toml(plan), "version": version("fednotes"), "package": package_digest(), "run": run}
    return ConfigRecord({**said})


def query_content(plan: StudyPlan, run: str, base: str = "") -> RecordDict:
    """Of a query; `base` is the digest of the plan's base at the coordinator, empty where there is but one machine."""
    config = request_config(plan, run)
    config["base"] = base
    return RecordDict({CONFIG: config})


def check_base(message: Message, ours: str) -> None:
    """Raises FednotesError `base-differs`: what does not travel comes from each site's own copy of the base."""
    theirs = str(message.content.config_records[CONFIG]["base"])
    if theirs and theirs != ours:
        raise FednotesError(
            "base-differs",
            f"The base of the plan has the weights {ours[:12]} at this site, and {theirs[:12]} at the coordinator.",
            "Install the same files of the base on both sides.",
        )


def read_plan(message: Message) -> StudyPlan:
    """The plan of any request. Raises FednotesError where versions or packages differ, or the plan is not valid."""
    config = message.content.config_records[CONFIG]
    theirs, ours = str(config["version"]), version("fednotes")
    if theirs != ours:
        raise FednotesError(
            "version-differs", f"The coordinator runs fednotes {theirs}, this site {ours}.", "Install the same."
        )
    if str(config.get("package")) != package_digest():
        raise FednotesError(
            "package-differs",
            f"Both run fednotes {ours}, but the coordinator's files are not those of this site.",
            "Compare `fednotes version` on both sides, and install the same package.",
        )
    return parse_plan(str(config["plan"]))


def read_run(message: Message) -> str:
    """The id of the run. Raises FednotesError where it is not 32 hex digits: it becomes part of file names."""
    run = str(message.content.config_records[CONFIG].get("run"))
    if not re.fullmatch(r"[0-9a-f]{32}", run):
        raise FednotesError("run-invalid", "The coordinator's request names no run.", "Is its version the same?")
    return run


def nothing_held(run: str, digest: str) -> Tensors:
    """Raises FednotesError `weights-missing`: the coordinator then sends them."""
    raise FednotesError("weights-missing", "The site does not have the weights that the coordinator means.")


def read_request(message: Message, held: Callable[[str, str], Tensors] = nothing_held) -> Request:
    """A request to train or to evaluate.

    Args:
        held: gives the shared tensors that a run (hex) brought last, by their digest (hex), where the request has that
            in place of the tensors.

    Raises:
        FednotesError: as `read_plan` and `read_run`, and what `held` raises; `round-beyond-plan`.
    """
    config = message.content.config_records[CONFIG]
    mu = config.get("proximal-mu", 0.0)
    assert isinstance(mu, (int, float))
    number = config["server-round"]
    assert isinstance(number, int)
    plan, run = read_plan(message), read_run(message)
    first = 1 if message.metadata.message_type.startswith("train") else 0  # the base is evaluated, too
    if not first <= number <= plan.federation.rounds:
        raise FednotesError(
            "round-beyond-plan",
            f"The coordinator asks for round {number:,} of a plan of {plan.federation.rounds:,}.",
            "Ask the coordinator why: what was approved ends with the plan's last round.",
        )
    if HELD in config:
        arrays = held(run, str(config[HELD]))
    else:
        arrays = wire.received(unpacked(message.content.array_records[ARRAYS]))
    return Request(plan, run, number, arrays, float(mu))


def facts_reply(facts: SiteFacts, message: Message) -> Message:
    return Message(RecordDict({CONFIG: ConfigRecord(facts.model_dump(exclude_none=True))}), reply_to=message)


def train_reply(reply: TrainReply, tensors: Tensors, message: Message) -> Message:
    details = _details(reply.parts, None)
    for name, value in (reply.privacy.model_dump(exclude_none=True) if reply.privacy else {}).items():
        details[f"privacy-{name}"] = value
    content = RecordDict({ARRAYS: packed(tensors), METRICS: _metrics(reply), DETAILS: details})
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
    refuse_error(message)
    try:
        return SiteFacts.model_validate(dict(message.content.config_records[CONFIG]))
    except (KeyError, ValueError):
        raise BadReply("its description is malformed") from None


def read_train_reply(
    message: Message, expected: dict[str, tuple[int, ...]], most_notes: int, plan: StudyPlan
) -> tuple[TrainReply, Tensors]:
    """A checked reply: the expected names and shapes, the plan's number format, finite, and a weight of 1 to
    `most_notes` notes; with private training a weight of 1, and what was spent, which is not more than the plan's
    epsilon. The tensors are as they travelled (`common.wire.restored` makes weights of them).

    Raises BadReply.
    """
    refuse_error(message)
    content = message.content
    if set(content.array_records) != {ARRAYS} or set(content.metric_records) != {METRICS}:
        raise BadReply("its records are not one of arrays and one of metrics")
    spent = _read_privacy(content, plan.privacy)
    parts, _ = _read_details(content, plan.objective.kind)
    try:
        tensors = unpacked(content.array_records[ARRAYS])
    except Exception:
        raise BadReply("its tensors cannot be read") from None
    if wrong := set(tensors) ^ set(expected):
        raise BadReply(f"wrong keys: {len(wrong)} tensors are missing or unknown, such as {min(wrong)[:80]!r}")
    expected_type = wire.update_type(plan.federation.wire)
    for name, shape in expected.items():
        value = tensors[name]
        if value.shape != shape:
            raise BadReply(f"wrong shape: tensor {name} has {value.shape}, not {shape}")
        if value.dtype != expected_type:
            raise BadReply(f"wrong type: tensor {name} is {value.dtype}, not {expected_type}")
        if not np.isfinite(value).all():
            raise BadReply(f"not finite: tensor {name} holds NaN or infinity")
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


def for_strategy(reply: Message, tensors: Tensors) -> Message:
    """A checked reply as Flower's strategies take it: `tensors`, in their order, for some go by position, and the
    weight as its only metric, for they want the same metrics of all sites."""
    weight = {WEIGHT: reply.content.metric_records[METRICS][WEIGHT]}
    reply.content[METRICS], reply.content[ARRAYS] = MetricRecord(weight), to_arrays(tensors)
    return reply


def weight(reply: Message) -> float:
    """What a checked reply weighs in the average: notes, or 1 with private training."""
    value = reply.content.metric_records[METRICS][WEIGHT]
    assert isinstance(value, (int, float))  # it was checked
    return float(value)


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


def read_evaluate_reply(message: Message, objective: str) -> EvaluateReply:
    """Raises BadReply."""
    refuse_error(message)
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


def site_code(message: Message) -> str:
    """The code of a site's error; empty where it is none, or has no code: any other text could carry what must not be
    said."""
    if not message.has_error() or message.error.code != SITE_ERROR:
        return ""
    reason = message.error.reason or ""
    return reason if re.fullmatch(r"[a-z]{1,20}(-[a-z]{1,20}){0,4}", reason) else ""


def refuse_error(message: Message) -> None:
    """Raises BadReply where the answer is an error."""
    if message.has_error():
        if code := site_code(message):
            raise BadReply(f"the site reports {code}", code)
        number = message.error.code
        raise BadReply(f"it failed (Flower error {number})", "node-lost" if number in _LOST else "site-failed")


def _numbers(record: MetricRecord, names: set[str]) -> dict[str, float]:
    if set(record) != names:
        raise BadReply("its metrics are not the expected ones")
    values = {}
    for name, value in record.items():
        if isinstance(value, list) or not math.isfinite(value):
            raise BadReply(f"its {name} is not a finite number")
        values[name] = float(value)
    return values

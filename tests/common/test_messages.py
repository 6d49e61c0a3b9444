"""The messages: what goes in comes out, and what a round cannot use is refused, with a reason."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from common import messages
from common.errors import FednotesError, InputError
from common.messages import BadReply, EvaluateReply, TrainReply
from common.plan import StudyPlan
from common.results import PrivacySpent, SiteFacts, Space

SECRET = "Mrs Zebrafinch, 4 Elm Street"
MALFORMED = "what it says of its privacy is missing or malformed"
TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([1.5]), "empty": np.zeros(0, np.float32)}
MOST = 1000
EXPECTED = {name: value.shape for name, value in TENSORS.items()}
METRICS: dict[str, Any] = {"num-examples": 12, "steps": 3, "tokens": 99, "loss": 1.25, "seconds": 0.5}
EVALUATED: dict[str, Any] = {"num-examples": 4, "tokens": 40, "loss": 2.5}
FACTS = {"train": 30, "dev": 4, "test": 5, "set_aside": 1, "tokens": 999, "whole": 20, "shortened": 7, "too_short": 3}
DETAILS = ConfigRecord({"part-mlm": 2.0, "part-contrastive": 0.5})
RUN = "0123456789abcdef" * 2
SPENT = PrivacySpent(
    unit="patient", units=250, noise_multiplier=1.25, sample_rate=0.064, steps=3, epsilon=0.75, delta=1e-5
)

MakeMessage = Callable[..., Message]


def arrays(**changed: np.ndarray) -> ArrayRecord:
    return messages.packed(TENSORS | changed)


def arrays_of(type: type) -> ArrayRecord:
    return messages.packed({name: value.astype(type) for name, value in TENSORS.items()})


@pytest.fixture
def plan_of(make_plan: Callable[..., StudyPlan]) -> Callable[..., StudyPlan]:
    """A plan of an objective."""

    def make(objective: str = "declutr", **sections: dict[str, Any]) -> StudyPlan:
        spans = {"max_span": 16} if objective == "declutr" else {}
        return make_plan(objective={"kind": objective, **spans}, **sections)

    return make


@pytest.fixture
def train_reason(make_message: MakeMessage, plan_of: Callable[..., StudyPlan]) -> Callable[..., str]:
    """Why a train reply of some records is refused."""

    def reason(content: RecordDict | Error, **sections: dict[str, Any]) -> str:
        with pytest.raises(BadReply) as caught:
            reply = Message(content, reply_to=make_message())
            messages.read_train_reply(reply, EXPECTED, MOST, plan_of(**sections))
        assert SECRET not in str(caught.value)
        return str(caught.value)

    return reason


def trained(tensors: ArrayRecord, **changed: Any) -> RecordDict:
    """The records of a train reply, with some metrics changed."""
    return RecordDict({"arrays": tensors, "metrics": MetricRecord(METRICS | changed), "details": DETAILS})


def metrics(**changed: Any) -> RecordDict:
    return trained(arrays(), **changed)


def evaluated(**changed: Any) -> RecordDict:
    return RecordDict({"metrics": MetricRecord(EVALUATED | changed), "details": DETAILS})


TURNED = {
    "x": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "n": np.array(1.5, np.float32),
    "y": np.ones((0, 3), "f4"),
}


@pytest.mark.parametrize("type", [np.float32, np.float16])
@pytest.mark.parametrize("tensors", [TENSORS, TURNED])
def test_tensors_survive(tensors: messages.Tensors, type: type) -> None:
    tensors = {name: value.astype(type) for name, value in tensors.items()}
    for back in (messages.unpacked(messages.packed(tensors)), messages.from_arrays(messages.to_arrays(tensors))):
        assert list(back) == list(tensors)
        for name, value in tensors.items():
            assert back[name].dtype == type and back[name].shape == value.shape and np.array_equal(back[name], value)


def test_what_is_packed_is_a_copy() -> None:
    value = np.ones(3, np.float32)
    records = [messages.to_arrays({"x": value}), messages.packed({"x": value})]
    value += 1
    assert all((array.numpy() == 1).all() for record in records for array in record.values())


FLAT = np.zeros(6, np.float32)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"[]": FLAT},
        {SECRET: FLAT},
        {"null": FLAT},
        {"7": FLAT},
        {"[7]": FLAT},
        {'[["a", 6]]': FLAT},
        {'[["a", [7]]]': FLAT},
        {'[["a", [5]]]': FLAT},
        {'[["a", [-1, -6]]]': FLAT},
        {'[["a", [-6]], ["b", [12]]]': FLAT},
        {'[["a", [3]], ["a", [3]]]': FLAT},
        {'[["a", ["x"]]]': FLAT},
        {'[["a", [2, 3]]]': FLAT.reshape(2, 3)},
        {'[["a", [3]]]': FLAT[:3], '[["b", [3]]]': FLAT[:3]},
        {"[" * 100_000: FLAT},
        {'[["a", [99999999999999999999, 99999999999999999999]]]': FLAT},
    ],
    ids=range(17),
)
def test_a_layout_that_does_not_fit_is_refused(record: dict[str, np.ndarray], train_reason: Callable[..., str]) -> None:
    arrays = ArrayRecord({key: Array(value) for key, value in record.items()})
    assert train_reason(trained(arrays)) == "its tensors cannot be read"


def test_a_request_survives(make_plan: Callable[..., StudyPlan], make_message: MakeMessage) -> None:
    plan = make_plan(federation={"rounds": 4})
    config = messages.request_config(plan, RUN)
    config["server-round"] = 4
    content = RecordDict({"arrays": messages.packed(TENSORS), "config": config})
    request = messages.read_request(make_message(content))
    assert (request.plan, request.run, request.round, request.proximal_mu) == (plan, RUN, 4, 0.0)
    assert request.plan.hash() == plan.hash() and all(np.array_equal(request.arrays[n], TENSORS[n]) for n in TENSORS)
    config["proximal-mu"] = 0.25
    assert messages.read_request(make_message(content)).proximal_mu == 0.25


@pytest.mark.parametrize(
    ("kind", "number"), [("train", 0), ("train", 3), ("train", -1), ("evaluate", -1), ("evaluate", 3)]
)
def test_a_round_that_the_plan_does_not_have_is_refused(
    make_plan: Callable[..., StudyPlan], make_message: MakeMessage, kind: str, number: int
) -> None:
    """What a hospital approved ends with the plan's last round."""
    config = messages.request_config(make_plan(federation={"rounds": 2}), RUN)
    content = RecordDict({"arrays": messages.packed(TENSORS), "config": config})
    for within in (1, 2):
        config["server-round"] = within
        assert messages.read_request(make_message(content, kind)).round == within
    config["server-round"] = number
    with pytest.raises(FednotesError) as caught:
        messages.read_request(make_message(content, kind))
    assert caught.value.code == "round-beyond-plan"


def test_a_query_carries_the_plan_and_the_run(make_plan: Callable[..., StudyPlan], make_message: MakeMessage) -> None:
    plan = make_plan()
    query = make_message(messages.query_content(plan, RUN), "query")
    assert messages.read_plan(query) == plan and messages.read_run(query) == RUN


@pytest.mark.parametrize(
    "run",
    [None, "", RUN[:-1], RUN + "0", RUN.upper(), RUN[:-1] + "g", RUN + "\n", "../" + RUN[3:], RUN[:-1] + "٣", 12, b"0"],
    ids=repr,
)
def test_a_run_that_is_no_id_is_refused(
    make_plan: Callable[..., StudyPlan], make_message: MakeMessage, run: Any
) -> None:
    """It becomes part of the names of files at a site."""
    config = messages.request_config(make_plan(), RUN)
    config["server-round"] = 1
    if run is None:
        del config["run"]
    else:
        config["run"] = run
    request = make_message(RecordDict({"config": config, "arrays": arrays()}))
    for read in (messages.read_run, messages.read_request):
        with pytest.raises(FednotesError) as caught:
            read(request)
        assert caught.value.code == "run-invalid"


def test_another_version_is_refused(make_plan: Callable[..., StudyPlan], make_message: MakeMessage) -> None:
    content = messages.query_content(make_plan(), RUN)
    content.config_records["config"]["version"] = "99.0"
    with pytest.raises(FednotesError, match=r"99\.0") as caught:
        messages.read_plan(make_message(content))
    assert caught.value.code == "version-differs"


def test_a_plan_that_is_not_valid_is_refused(make_plan: Callable[..., StudyPlan], make_message: MakeMessage) -> None:
    content = messages.query_content(make_plan(), RUN)
    content.config_records["config"]["plan"] = "[study]\n"
    with pytest.raises(InputError):
        messages.read_plan(make_message(content))


def test_facts_survive(make_message: MakeMessage) -> None:
    facts = SiteFacts(name="Saint Élise", **FACTS)
    assert messages.read_facts(messages.facts_reply(facts, make_message())) == facts


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"config": ConfigRecord({"name": "a"})}),
        RecordDict({"config": ConfigRecord(FACTS | {"name": SECRET, "train": "many"})}),
        RecordDict({"other": ConfigRecord({})}),
    ],
    ids=["nothing", "a part", "no number", "another key"],
)
def test_malformed_facts_are_refused(make_message: MakeMessage, content: RecordDict) -> None:
    with pytest.raises(BadReply, match=r"^its description is malformed$"):
        messages.read_facts(Message(content, reply_to=make_message()))


@pytest.mark.parametrize(("objective", "parts"), messages.PARTS.items())
def test_a_train_reply_survives(
    make_message: MakeMessage, plan_of: Callable[..., StudyPlan], objective: str, parts: tuple[str, ...]
) -> None:
    sent = TrainReply(12, steps=3, tokens=99, loss=1.25, seconds=0.5, parts=dict.fromkeys(parts, 0.1))
    reply = messages.train_reply(sent, TENSORS, make_message())
    said, tensors = messages.read_train_reply(reply, EXPECTED, MOST, plan_of(objective))
    assert said == sent and set(tensors) == set(TENSORS)
    assert all(np.array_equal(tensors[n], TENSORS[n]) and tensors[n].dtype == np.float32 for n in TENSORS)


@pytest.mark.parametrize("space", [None, Space(notes=9), Space(notes=9, within=0.5, cka_local=-0.25)])
@pytest.mark.parametrize("parts", [{}, {"mlm": 2.0}, {"mlm": 2.0, "contrastive": 0.5}])
def test_an_evaluate_reply_survives(make_message: MakeMessage, parts: dict[str, float], space: Space | None) -> None:
    sent = EvaluateReply(loss=2.5, notes=4, tokens=40, parts=parts, space=space)
    assert messages.read_evaluate_reply(messages.evaluate_reply(sent, make_message()), "declutr") == sent


@pytest.mark.parametrize(
    "details",
    [
        {"part-category": 1.0},
        {"part-": 1.0},
        {"mlm": 1.0},
        {SECRET: 1.0},
        {"part-mlm": SECRET},
        {"part-mlm": float("nan")},
        {"part-mlm": float("inf")},
        {"part-mlm": [1.0, 2.0]},
        {"part-mlm": b"bytes"},
        {"space-notes": float("nan")},
        {"space-other": 1.0},
    ],
    ids=str,
)
def test_details_that_are_not_the_expected_numbers_are_refused(
    make_message: MakeMessage, train_reason: Callable[..., str], details: dict[str, Any]
) -> None:
    """The objective is declutr: what another one would say is as wrong as words."""
    record = ConfigRecord(details)
    assert train_reason(RecordDict({**metrics(), "details": record})) == "its details are not the expected numbers"
    with pytest.raises(BadReply, match=r"^its details are not the expected numbers$"):
        reply = Message(RecordDict({**evaluated(), "details": record}), reply_to=make_message())
        messages.read_evaluate_reply(reply, "declutr")


@pytest.mark.parametrize("figures", [{"space-within": 0.5}, {"space-notes": 1.5}])
def test_malformed_figures_of_the_space_are_refused(make_message: MakeMessage, figures: dict[str, float]) -> None:
    reply = Message(RecordDict({**evaluated(), "details": ConfigRecord(figures)}), reply_to=make_message())
    with pytest.raises(BadReply, match=r"^its figures of the embedding space are malformed$"):
        messages.read_evaluate_reply(reply, "declutr")


@pytest.mark.parametrize("read", ["read_facts", "read_evaluate_reply", "read_train_reply"])
def test_an_error_is_a_reason(make_message: MakeMessage, plan_of: Callable[..., StudyPlan], read: str) -> None:
    def reason(reply: Message) -> str:
        with pytest.raises(BadReply) as caught:
            arguments = {
                "read_facts": (),
                "read_evaluate_reply": ("declutr",),
                "read_train_reply": (EXPECTED, MOST, plan_of()),
            }
            getattr(messages, read)(reply, *arguments[read])
        return str(caught.value)

    assert reason(messages.error_reply("too-few-notes", make_message())) == "the site reports too-few-notes"
    assert reason(Message(Error(2, SECRET), reply_to=make_message())) == "it failed (Flower error 2)"
    assert reason(Message(Error(0, None), reply_to=make_message())) == "it failed (Flower error 0)"
    for foreign in (SECRET, "a\nb", "\x1b[31m", "x" * 10_000, None):
        said = reason(Message(Error(messages.SITE_ERROR, foreign), reply_to=make_message()))
        assert said.isprintable() and len(said) < 120 and SECRET not in said, "only a code may be shown"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (RecordDict(), "its records are not"),
        (RecordDict({"arrays": arrays()}), "its records are not"),
        (RecordDict({"metrics": MetricRecord(METRICS)}), "its records are not"),
        (RecordDict({**metrics(), "more": arrays()}), "its records are not"),
        (RecordDict({**metrics(), "m": MetricRecord({})}), "its records are not"),
        (RecordDict({SECRET: arrays(), "metrics": MetricRecord(METRICS), "details": DETAILS}), "its records are not"),
        (RecordDict({"arrays": arrays(), "metrics": MetricRecord(METRICS)}), "its details are missing or unknown"),
        (RecordDict({**metrics(), "more": ConfigRecord({})}), "its details are missing or unknown"),
        (
            trained(arrays(extra=np.zeros(1, np.float32))),
            "wrong keys: 1",
        ),
        (
            trained(messages.packed({"a": TENSORS["a"]})),
            "wrong keys: 2",
        ),
        (trained(ArrayRecord()), "its tensors cannot be read"),
        (trained(messages.to_arrays(TENSORS)), "its tensors cannot be read"),
        (
            trained(arrays(b=TENSORS["b"].T)),
            "wrong shape: tensor b has (3, 2)",
        ),
        (
            trained(arrays(a=np.array(1.5, np.float32))),
            "wrong shape: tensor a has ()",
        ),
        (
            trained(arrays_of(np.float64)),
            "wrong type: tensor b is float64",
        ),
        (
            trained(arrays_of(np.float16)),
            "wrong type: tensor b is float16",
        ),
        (
            trained(arrays_of(np.int32)),
            "wrong type: tensor b is int32",
        ),
        (
            trained(arrays(a=np.float32([np.nan]))),
            "not finite: tensor a",
        ),
        (
            trained(arrays(a=np.float32([-np.inf]))),
            "not finite: tensor a",
        ),
        (metrics(**{"num-examples": 0}), "its number of notes is 0"),
        (metrics(**{"num-examples": -3}), "its number of notes is -3"),
        (metrics(**{"num-examples": float("nan")}), "its num-examples is not a finite number"),
        (metrics(**{"num-examples": float("inf")}), "its num-examples is not a finite number"),
        (metrics(loss=float("nan")), "its loss is not a finite number"),
        (metrics(loss=[1.0, 2.0]), "its loss is not a finite number"),
        (metrics(**{"num-examples": [3]}), "its num-examples is not a finite number"),
        (metrics(extra=1.0), "its metrics are not the expected ones"),
        (metrics(**{SECRET: 1.0}), "its metrics are not the expected ones"),
        (
            RecordDict({"arrays": arrays(), "metrics": MetricRecord({"num-examples": 3}), "details": DETAILS}),
            "its metrics are not the expected ones",
        ),
    ],
)
def test_a_train_reply_that_a_round_cannot_use_is_refused(
    train_reason: Callable[..., str], content: RecordDict, told: str
) -> None:
    assert train_reason(content).startswith(told)


def test_an_array_that_cannot_be_read_is_refused(train_reason: Callable[..., str]) -> None:
    broken = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=SECRET.encode())
    assert train_reason(trained(ArrayRecord(dict.fromkeys(arrays(), broken)))) == "its tensors cannot be read"


def test_a_pickled_array_is_never_run(train_reason: Callable[..., str], tmp_path: Any) -> None:
    import io
    import os

    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "went-off"),)

    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    bomb = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=stream.getvalue())
    assert train_reason(trained(ArrayRecord(dict.fromkeys(arrays(), bomb)))) == "its tensors cannot be read"
    assert not (tmp_path / "went-off").exists()


def test_a_count_that_is_too_large_is_refused(train_reason: Callable[..., str]) -> None:
    """A weight of 1e300 would make one site the whole average."""
    assert "number" in train_reason(metrics(**{"num-examples": 1e300}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (RecordDict(), "its records are not one of metrics"),
        (RecordDict({**evaluated(), "m": MetricRecord({})}), "its records are not one of metrics"),
        (evaluated(x=1), "its metrics are not the expected ones"),
        (evaluated(loss=float("inf")), "its loss is not a finite number"),
        (evaluated(loss=[1.0]), "its loss is not a finite number"),
        (RecordDict({"metrics": MetricRecord(EVALUATED)}), "its details are missing or unknown"),
    ],
)
def test_an_evaluate_reply_that_says_nothing_is_refused(
    make_message: MakeMessage, content: RecordDict, told: str
) -> None:
    with pytest.raises(BadReply, match=told):
        messages.read_evaluate_reply(Message(content, reply_to=make_message()), "declutr")


# Private training.


def private_details(**changed: Any) -> ConfigRecord:
    """What a site says of its privacy, with some of it changed; None leaves it out."""
    said = SPENT.model_dump() | changed
    return ConfigRecord({**DETAILS, **{f"privacy-{name}": v for name, v in said.items() if v is not None}})


def private_reply(details: ConfigRecord | None = None, without: str = "", **changed: Any) -> RecordDict:
    """The records of a reply from private training: it weighs 1, and time and tokens are withheld."""
    values = METRICS | {"num-examples": 1, "tokens": 0, "seconds": 0.0} | changed
    record = MetricRecord({name: value for name, value in values.items() if name != without})
    return RecordDict({"arrays": arrays(), "metrics": record, "details": details or private_details()})


@pytest.mark.parametrize(("loss", "release"), [(1.25, True), (None, True), (None, False)])
def test_a_private_train_reply_survives(
    make_message: MakeMessage, plan_of: Callable[..., StudyPlan], loss: float | None, release: bool
) -> None:
    sent = TrainReply(1, steps=3, tokens=0, loss=loss, seconds=0.0, privacy=SPENT)
    reply = messages.train_reply(sent, TENSORS, make_message())
    plan = plan_of(privacy={"epsilon": 3.0, "release_loss": release})
    said, tensors = messages.read_train_reply(reply, EXPECTED, 0, plan)  # 0: the site said no number of notes
    assert said == sent and set(tensors) == set(TENSORS)


@pytest.mark.parametrize(
    ("privacy", "content", "told"),
    [
        ({"epsilon": 1.0}, metrics(**{"num-examples": 1}), MALFORMED),
        ({"epsilon": 1.0}, private_reply(private_details(epsilon=None)), "what it says of its privacy is missing"),
        ({"epsilon": 1.0}, private_reply(private_details(epsilon=SECRET)), "what it says of its privacy is missing"),
        ({"epsilon": 1.0}, private_reply(private_details(units=0.5)), "what it says of its privacy is missing"),
        ({"epsilon": 1.0}, private_reply(private_details(unit="ward")), "what it says of its privacy is missing"),
        ({"epsilon": 1.0}, private_reply(private_details(more=1.0)), "what it says of its privacy is missing"),
        ({"epsilon": 1.0}, private_reply(private_details(unit="note")), "its privacy is not that of the plan"),
        ({"epsilon": 1.0, "unit": "note"}, private_reply(), "its privacy is not that of the plan"),
        ({"epsilon": 1.0, "delta": 9e-6}, private_reply(), "its privacy is not that of the plan"),
        ({"epsilon": 0.74}, private_reply(), "it has spent epsilon 0.750, more than the plan's 0.74"),
        (
            {"epsilon": 1.0},
            private_reply(private_details(epsilon=float("nan"))),
            MALFORMED,
        ),
        (
            {"epsilon": 1.0},
            private_reply(private_details(epsilon=float("inf"))),
            MALFORMED,
        ),
        ({"epsilon": 1.0}, private_reply(**{"num-examples": 12}), "its number of notes is 12, not 1 to 1"),
        ({"epsilon": 1.0}, private_reply(**{"num-examples": 1.5}), "its number of notes is 1.5, not 1 to 1"),
        ({"epsilon": 1.0}, private_reply(**{"num-examples": 0.5}), "its number of notes is 0.5, not 1 to 1"),
        ({"epsilon": 1.0}, private_reply(without="steps"), "its metrics are not the expected ones"),
        ({"epsilon": 1.0, "release_loss": False}, private_reply(), "its metrics are not the expected ones"),
    ],
)
def test_a_private_reply_that_is_not_what_the_plan_asks_is_refused(
    train_reason: Callable[..., str], privacy: dict[str, Any], content: RecordDict, told: str
) -> None:
    assert train_reason(content, privacy=privacy).startswith(told)


def test_a_plan_with_a_noise_multiplier_bounds_no_epsilon(
    make_message: MakeMessage, plan_of: Callable[..., StudyPlan]
) -> None:
    reply = Message(private_reply(private_details(epsilon=99.0)), reply_to=make_message())
    said, _ = messages.read_train_reply(reply, EXPECTED, MOST, plan_of(privacy={"noise_multiplier": 1.25}))
    assert said.privacy == SPENT.model_copy(update={"epsilon": 99.0})


def test_privacy_without_a_private_plan_is_refused(train_reason: Callable[..., str]) -> None:
    assert train_reason(private_reply()) == "its privacy is not that of the plan"

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
from common.results import SiteFacts

SECRET = "Mrs Zebrafinch, 4 Elm Street"
TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([1.5]), "empty": np.zeros(0, np.float32)}
MOST = 1000
EXPECTED = {name: value.shape for name, value in TENSORS.items()}
METRICS: dict[str, Any] = {"num-examples": 12, "steps": 3, "tokens": 99, "loss": 1.25, "seconds": 0.5}
EVALUATED: dict[str, Any] = {"num-examples": 4, "tokens": 40, "loss": 2.5}

MakeMessage = Callable[..., Message]


def arrays(**changed: np.ndarray) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in (TENSORS | changed).items()})


@pytest.fixture
def train_reason(make_message: MakeMessage) -> Callable[..., str]:
    """Why a train reply of some records is refused."""

    def reason(content: RecordDict | Error) -> str:
        with pytest.raises(BadReply) as caught:
            messages.read_train_reply(Message(content, reply_to=make_message()), EXPECTED, MOST)
        assert SECRET not in str(caught.value)
        return str(caught.value)

    return reason


def metrics(**changed: Any) -> RecordDict:
    return RecordDict({"arrays": arrays(), "metrics": MetricRecord(METRICS | changed)})


def test_arrays_survive() -> None:
    back = messages.from_arrays(messages.to_arrays(TENSORS))
    assert list(back) == list(TENSORS)
    for name, value in TENSORS.items():
        assert back[name].dtype == np.float32 and np.array_equal(back[name], value)
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(messages.from_arrays(messages.to_arrays({"x": turned}))["x"], turned)


def test_a_number_keeps_its_shape() -> None:
    assert messages.from_arrays(messages.to_arrays({"x": np.array(1.5, np.float32)}))["x"].shape == ()


def test_arrays_are_copies() -> None:
    value = np.ones(3, np.float32)
    record = messages.to_arrays({"x": value})
    value += 1
    assert (record["x"].numpy() == 1).all()


def test_a_request_survives(make_plan: Callable[..., StudyPlan], make_message: MakeMessage) -> None:
    plan = make_plan()
    config = messages.request_config(plan)
    config["server-round"] = 4
    content = RecordDict({"arrays": messages.to_arrays(TENSORS), "config": config})
    request = messages.read_request(make_message(content))
    assert (request.plan, request.round, request.proximal_mu) == (plan, 4, 0.0)
    assert request.plan.hash() == plan.hash() and all(np.array_equal(request.arrays[n], TENSORS[n]) for n in TENSORS)
    config["proximal-mu"] = 0.25
    assert messages.read_request(make_message(content)).proximal_mu == 0.25


def test_a_query_carries_the_plan(make_plan: Callable[..., StudyPlan], make_message: MakeMessage) -> None:
    plan = make_plan()
    assert messages.read_plan(make_message(messages.query_content(plan), "query")) == plan


def test_another_version_is_refused(make_plan: Callable[..., StudyPlan], make_message: MakeMessage) -> None:
    content = messages.query_content(make_plan())
    content.config_records["config"]["version"] = "99.0"
    with pytest.raises(FednotesError, match=r"99\.0") as caught:
        messages.read_plan(make_message(content))
    assert caught.value.code == "version-differs"


def test_a_plan_that_is_not_valid_is_refused(make_plan: Callable[..., StudyPlan], make_message: MakeMessage) -> None:
    content = messages.query_content(make_plan())
    content.config_records["config"]["plan"] = "[study]\n"
    with pytest.raises(InputError):
        messages.read_plan(make_message(content))


def test_facts_survive(make_message: MakeMessage) -> None:
    facts = SiteFacts(name="Saint Élise", train=30, dev=4, test=5, set_aside=1, tokens=999)
    assert messages.read_facts(messages.facts_reply(facts, make_message())) == facts


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"config": ConfigRecord({"name": "a"})}),
        RecordDict(
            {
                "config": ConfigRecord(
                    {"name": SECRET, "train": "many", "dev": 1, "test": 1, "set_aside": 0, "tokens": 1}
                )
            }
        ),
        RecordDict({"other": ConfigRecord({})}),
    ],
    ids=["nothing", "a part", "no number", "another key"],
)
def test_malformed_facts_are_refused(make_message: MakeMessage, content: RecordDict) -> None:
    with pytest.raises(BadReply, match=r"^its description is malformed$"):
        messages.read_facts(Message(content, reply_to=make_message()))


def test_a_train_reply_survives(make_message: MakeMessage) -> None:
    sent = TrainReply(notes=12, steps=3, tokens=99, loss=1.25, seconds=0.5)
    said, tensors = messages.read_train_reply(messages.train_reply(sent, TENSORS, make_message()), EXPECTED, MOST)
    assert said == sent and set(tensors) == set(TENSORS)
    assert all(np.array_equal(tensors[n], TENSORS[n]) and tensors[n].dtype == np.float32 for n in TENSORS)


def test_an_evaluate_reply_survives(make_message: MakeMessage) -> None:
    sent = EvaluateReply(loss=2.5, notes=4, tokens=40)
    assert messages.read_evaluate_reply(messages.evaluate_reply(sent, make_message())) == sent


@pytest.mark.parametrize("read", ["read_facts", "read_evaluate_reply", "read_train_reply"])
def test_an_error_is_a_reason(make_message: MakeMessage, read: str) -> None:
    def reason(reply: Message) -> str:
        with pytest.raises(BadReply) as caught:
            getattr(messages, read)(reply, *([EXPECTED, MOST] if read == "read_train_reply" else []))
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
        (RecordDict({"arrays": arrays(), "more": arrays(), "metrics": MetricRecord(METRICS)}), "its records are not"),
        (
            RecordDict({"arrays": arrays(), "metrics": MetricRecord(METRICS), "m": MetricRecord({})}),
            "its records are not",
        ),
        (RecordDict({SECRET: arrays(), "metrics": MetricRecord(METRICS)}), "its records are not"),
        (
            RecordDict({"arrays": arrays(extra=np.zeros(1, np.float32)), "metrics": MetricRecord(METRICS)}),
            "wrong keys: 1",
        ),
        (
            RecordDict({"arrays": ArrayRecord({"a": Array(TENSORS["a"])}), "metrics": MetricRecord(METRICS)}),
            "wrong keys: 2",
        ),
        (RecordDict({"arrays": ArrayRecord(), "metrics": MetricRecord(METRICS)}), "wrong keys: 3"),
        (
            RecordDict({"arrays": arrays(b=TENSORS["b"].T), "metrics": MetricRecord(METRICS)}),
            "wrong shape: tensor b has (3, 2)",
        ),
        (
            RecordDict({"arrays": arrays(a=np.array(1.5, np.float32)), "metrics": MetricRecord(METRICS)}),
            "wrong shape: tensor a has ()",
        ),
        (
            RecordDict({"arrays": arrays(a=np.float64([1.5])), "metrics": MetricRecord(METRICS)}),
            "wrong type: tensor a is float64",
        ),
        (
            RecordDict({"arrays": arrays(a=np.float16([1.5])), "metrics": MetricRecord(METRICS)}),
            "wrong type: tensor a is float16",
        ),
        (
            RecordDict({"arrays": arrays(a=np.int32([1])), "metrics": MetricRecord(METRICS)}),
            "wrong type: tensor a is int32",
        ),
        (
            RecordDict({"arrays": arrays(a=np.float32([np.nan])), "metrics": MetricRecord(METRICS)}),
            "not finite: tensor a",
        ),
        (
            RecordDict({"arrays": arrays(a=np.float32([-np.inf])), "metrics": MetricRecord(METRICS)}),
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
            RecordDict({"arrays": arrays(), "metrics": MetricRecord({"num-examples": 3})}),
            "its metrics are not the expected ones",
        ),
    ],
)
def test_a_train_reply_that_a_round_cannot_use_is_refused(
    train_reason: Callable[..., str], content: RecordDict, told: str
) -> None:
    assert train_reason(content).startswith(told)


def test_an_array_that_cannot_be_read_is_refused(train_reason: Callable[..., str]) -> None:
    record = arrays()
    record["a"] = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=SECRET.encode())
    reason = train_reason(RecordDict({"arrays": record, "metrics": MetricRecord(METRICS)}))
    assert reason == "tensor a cannot be read"


def test_a_pickled_array_is_never_run(train_reason: Callable[..., str], tmp_path: Any) -> None:
    import io
    import os

    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "went-off"),)

    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    record = arrays()
    record["a"] = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=stream.getvalue())
    assert train_reason(RecordDict({"arrays": record, "metrics": MetricRecord(METRICS)})) == "tensor a cannot be read"
    assert not (tmp_path / "went-off").exists()


def test_a_count_that_is_too_large_is_refused(train_reason: Callable[..., str]) -> None:
    """A weight of 1e300 would make one site the whole average."""
    assert "number" in train_reason(metrics(**{"num-examples": 1e300}))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (RecordDict(), "its records are not one of metrics"),
        (RecordDict({"metrics": MetricRecord(EVALUATED), "m": MetricRecord({})}), "its records are not one of metrics"),
        (RecordDict({"metrics": MetricRecord(EVALUATED | {"x": 1})}), "its metrics are not the expected ones"),
        (RecordDict({"metrics": MetricRecord(EVALUATED | {"loss": float("inf")})}), "its loss is not a finite number"),
        (RecordDict({"metrics": MetricRecord(EVALUATED | {"loss": [1.0]})}), "its loss is not a finite number"),
    ],
)
def test_an_evaluate_reply_that_says_nothing_is_refused(
    make_message: MakeMessage, content: RecordDict, told: str
) -> None:
    with pytest.raises(BadReply, match=told):
        messages.read_evaluate_reply(Message(content, reply_to=make_message()))

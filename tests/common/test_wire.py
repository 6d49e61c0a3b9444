"""Weights in half the bytes: what a site changed survives, and rounding does not add up from round to round."""

import numpy as np
import pytest

from common import wire
from common.errors import StudyError
from common.plan_sections import Wire

RNG = np.random.default_rng(0)
START = {"a": RNG.normal(0, 0.05, (300, 20)).astype(np.float32), "b": np.float32([1.0, -3e4])}
STEP = {"a": RNG.normal(0, 1e-5, (300, 20)).astype(np.float32), "b": np.float32([1e-4, 2.0])}


def trained(start: wire.Tensors) -> wire.Tensors:
    return {name: value + STEP[name] for name, value in start.items()}


@pytest.mark.parametrize(("format", "down", "up"), [("float32", 4, 4), ("float16", 2, 2), ("delta-float16", 4, 2)])
def test_bytes_each_way(format: Wire, down: int, up: int) -> None:
    sent = wire.down(START, format)
    reply = wire.up(trained(wire.received(sent)), wire.received(sent), format)
    assert {v.dtype.itemsize for v in sent.values()} == {down} and {v.dtype.itemsize for v in reply.values()} == {up}
    assert {v.dtype for v in reply.values()} == {wire.update_type(format)}
    assert {v.dtype for v in wire.restored(reply, START, format).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("format", ["float32", "float16", "delta-float16"])
def test_many_small_steps_add_up(format: Wire) -> None:
    """Each is far below what float16 can tell of a weight: sent as weights, all of them would be lost."""
    state = dict(START)
    for _ in range(50):
        begun = wire.received(wire.down(state, format))
        state = wire.restored(wire.up(trained(begun), begun, format), state, format)
    moved = state["a"] - START["a"]
    assert np.abs(moved - 50 * STEP["a"]).max() < 0.002 * np.abs(50 * STEP["a"]).max()
    lost = START["a"].astype(np.float16) + STEP["a"].astype(np.float16)
    assert (lost == START["a"].astype(np.float16)).mean() > 0.3  # what this test would see, were weights sent


def test_plain_weights_are_not_copied() -> None:
    assert wire.down(START, "float32") is START and wire.up(START, START, "float32") is START
    assert wire.restored(START, STEP, "float32") is START
    assert wire.received(START)["a"] is START["a"]


@pytest.mark.parametrize("format", ["float32", "float16", "delta-float16"])
def test_the_change_is_the_same_however_it_travels(format: Wire) -> None:
    begun = wire.received(wire.down(START, format))
    changed = wire.change(wire.up(trained(begun), begun, format), begun, format)
    assert np.allclose(changed["a"], STEP["a"], atol=1e-8, rtol=1e-3) and changed["a"].dtype == np.float32


def test_what_float16_cannot_hold_is_refused() -> None:
    big = {"a": np.float32([7e4])}
    with pytest.raises(StudyError, match=r"Tensor a has values of up to 7e\+04; float16 ends at 65,504") as caught:
        wire.down(big, "float16")
    assert caught.value.code == "wire-overflow"
    with pytest.raises(StudyError):
        wire.up(big, {"a": np.float32([-1.0])}, "delta-float16")


def test_what_is_not_finite_is_left_to_the_checks_of_the_reply() -> None:
    reply = wire.up({"a": np.float32([np.nan, np.inf])}, {"a": np.zeros(2, np.float32)}, "float16")
    assert not np.isfinite(reply["a"]).any()

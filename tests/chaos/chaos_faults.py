"""Kill anything: a coordinator and three sites, real processes and all, to which everything happens that can.

Each study has to end with all of its rounds done. Where the same sites contributed, its weights are those of a study to
which nothing happened, bit for bit.
"""

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults import Fault, Network, both, carry_out, cut, fill, hang, kill, let_go, small_disk
from surviving_federation import Federation, StudyUnderWay, Truth, free_port

from client.ledger import Ledger
from client.private_round import Terms
from client.receipt import receipts
from common.plan import StudyPlan

SEED = 20261123
ROUNDS = 12  # twice as many as a test has faults: rounds go by while one waits for its moment
MakePlan = Callable[..., StudyPlan]


@dataclass(frozen=True)
class Exposed:
    """A federation. As far as this user may make such, `charlie` has a network of its own, `bravo` and the coordinator
    a disk."""

    federation: Federation
    network: Network | None
    disks: dict[str, Path]


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exposed]:
    folder = tmp_path_factory.mktemp("exposed")
    network = Network("charlie")
    laid = network.lay()
    with small_disk(folder / "disk-0", 64) as first, small_disk(folder / "disk-1", 64) as second:
        disks = {name: disk for name, disk in (("coordinator", first), ("bravo", second)) if disk}
        one = Federation(
            folder,
            host=network.here if laid else "localhost",
            places={name: disk / name for name, disk in disks.items()},
            prefixes={"charlie": network.prefix} if laid else {},
            port=free_port(),
            flower_port=free_port(),
        )
        try:
            with one.stopped():
                one.set_up()
                one.start()
                yield Exposed(one, network if laid else None, disks)
        finally:
            network.remove()


@dataclass(frozen=True)
class Unbroken:
    weights: dict[str, bytes]
    round_seconds: float


@pytest.fixture(scope="module")
def unbroken(exposed: Exposed, same_sites_plan: MakePlan) -> Unbroken:
    """A study to which nothing happened."""
    study = StudyUnderWay(exposed.federation, same_sites_plan("unbroken"))
    study.finish(0, 300)
    usual = statistics.median(one.seconds for one in study.summary.rounds[1:])
    print(f"\nnothing happened: {study.seconds:.1f} s, {usual:.1f} s a round", flush=True)
    return Unbroken(study.weights(), usual)


@pytest.fixture
def break_it(
    exposed: Exposed, unbroken: Unbroken, same_sites_plan: MakePlan, request: pytest.FixtureRequest
) -> Callable[[list[Fault]], None]:
    """Let faults happen to a study, and see that it came to the same."""

    def run(faults: list[Fault]) -> None:
        name = request.node.name.removeprefix("test_").replace("_", "-")[:40]
        exposed.federation.wait_for_sites()  # whatever was left to hang before
        study = StudyUnderWay(exposed.federation, same_sites_plan(name))
        truth = Truth(study)
        try:
            carry_out(exposed.federation, study, faults, random.Random(f"{SEED} {name}"), unbroken.round_seconds)
        finally:
            truth.end()
            study.give_up()
            let_go(exposed.federation)
        assert study.summary.status == "finished"
        assert [one.number for one in study.summary.rounds] == list(range(ROUNDS + 1))
        assert study.weights() == unbroken.weights
        assert not truth.lies, truth.lies

    return run


@pytest.fixture(scope="module")
def same_sites_plan(make_study_plan: MakePlan) -> MakePlan:
    return lambda name: make_study_plan(name, rounds=ROUNDS, min_sites=3)


def test_killed_sites(break_it: Callable[[list[Fault]], None]) -> None:
    break_it([kill("worker of alpha"), kill("node of bravo"), kill("supervisor of charlie"), kill("node of charlie")])


def test_killed_coordinator(break_it: Callable[[list[Fault]], None]) -> None:
    roles = ("serverapp", "superexec", "superlink", "gateway", "coordinator")
    break_it([*map(kill, roles), kill("run", resumes=1)])


def test_hangs(break_it: Callable[[list[Fault]], None]) -> None:
    roles = ("worker of alpha", "node of bravo", "serverapp", "superlink", "gateway")
    break_it([hang(role, 15) for role in roles])


def test_hangs_for_ever(break_it: Callable[[list[Fault]], None]) -> None:
    roles = ("worker of charlie", "serverapp", "superlink", "gateway", "node of alpha")
    break_it([hang(role, None) for role in roles])


def test_cut_networks(exposed: Exposed, break_it: Callable[[list[Fault]], None]) -> None:
    if not exposed.network:
        pytest.skip("this user may not make networks")
    break_it([cut(exposed.network, 10), cut(exposed.network, 180)])


def test_full_disks(exposed: Exposed, break_it: Callable[[list[Fault]], None]) -> None:
    if not exposed.disks:
        pytest.skip("this user may not mount disks")
    break_it([fill(name, disk, 15) for name, disk in exposed.disks.items()])


def test_two_at_once(break_it: Callable[[list[Fault]], None]) -> None:
    break_it(
        [
            both(kill("serverapp"), kill("worker of alpha")),
            both(kill("gateway"), kill("node of bravo")),
            both(kill("superlink"), kill("supervisor of charlie")),
            both(kill("coordinator"), kill("run", resumes=1)),
            both(kill("node of alpha"), kill("node of charlie")),
        ]
    )


def test_private_studies_that_go_on_without_a_site(exposed: Exposed, make_study_plan: MakePlan) -> None:
    """Two of three sites make a round: it is done whatever happens to one. No ledger loses what left, or is charged
    for more than was planned."""
    federation = exposed.federation
    privacy = {"unit": "note", "noise_multiplier": 1.0, "delta": 1e-4}
    patience = {"round_timeout": 40.0}
    plan = make_study_plan("private", rounds=ROUNDS, min_sites=2, steps=20, privacy=privacy, federation=patience)
    faults = [
        kill("worker of alpha"),
        kill("serverapp"),
        kill("node of bravo"),
        both(kill("supervisor of charlie"), kill("run", resumes=1)),
        hang("node of alpha", None),
        kill("superlink"),
    ]
    federation.wait_for_sites()
    study = StudyUnderWay(federation, plan)
    truth = Truth(study)
    try:
        carry_out(federation, study, faults, random.Random(f"{SEED} private"), usual=4.0)
    finally:
        truth.end()
        study.give_up()
        let_go(federation)
    assert study.summary.status == "finished"
    assert [one.number for one in study.summary.rounds] == list(range(ROUNDS + 1))
    assert not truth.lies, truth.lies
    for folder in federation.sites.values():
        federation.run("site", "ledger", folder)
        entries = [entry for entry in Ledger(folder).entries() if entry.study == plan.study.name]
        left = [one for one in receipts(folder) if one.study == plan.study.name and one.kind == "train"]
        assert plan.privacy
        planned = Terms.of(plan, plan.privacy, entries[0].units).epsilon
        assert len(entries) == len({entry.round for entry in entries}) <= ROUNDS
        assert entries[-1].epsilon_study <= planned * (1 + 1e-9)
        assert {one.ledger for one in left} <= {entry.hash for entry in entries}
        assert len({one.round for one in left}) <= len(entries)

"""The privacy ledger: nothing is spent twice, beyond the budget or off the record, whatever dies and whoever races."""

import contextlib
import errno
import json
import math
import multiprocessing
import os
import re
import resource
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from pydantic import ValidationError
from scipy.stats import norm

import client.ledger
from client.ledger import LEDGER_FILE, LOCK_FILE, SECRET_FILE, Charge, Entry, Ledger, secret_key
from common.errors import FednotesError, InputError, MachineError
from common.privacy import epsilon_of

# Processes of their own, quickly: they are forked from one that has loaded the accountants and nothing else.
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["client.ledger", "opacus.accountants"])

RUN, OTHER = "aa11", "bb22"
NEAR = 0.025  # how far, relatively, two accountants of one kind may be apart


def charge(round: int = 1, run: str = RUN, **terms: Any) -> Charge:
    given = {
        "study": "first",
        "plan_hash": "ab" * 32,
        "unit": "patient",
        "units": 1000,
        "noise_multiplier": 1.1,
        "sample_rate": 0.05,
        "steps": 20,
        "delta": 1e-5,
        "accountant": "rdp",
        "inputs": "cd" * 32,
    }
    return Charge.model_validate(given | {"run": run, "round": round} | terms)


def charged(folder: Path, *rounds: int, run: str = RUN, **terms: Any) -> list[Entry]:
    return [Ledger(folder).charge(charge(number, run, **terms), study_cap=None, total_cap=None) for number in rounds]


def refused(folder: Path, wanted: Charge, study_cap: float | None = None, total_cap: float | None = None) -> str:
    """The code; the ledger must be as it was, to the byte."""
    file = folder / LEDGER_FILE
    before = file.read_bytes() if file.exists() else None
    with pytest.raises(FednotesError) as caught:
        Ledger(folder).charge(wanted, study_cap=study_cap, total_cap=total_cap)
    assert (file.read_bytes() if file.exists() else None) == before
    return caught.value.code


def damaged_at(folder: Path) -> int:
    """The line that is named as damaged, by a reader and by who would charge."""
    named = []
    for act in (Ledger(folder).entries, lambda: charged(folder, 99, run="ff")):
        with pytest.raises(MachineError) as caught:
            act()
        assert caught.value.code == "ledger-damaged"
        found = re.search(r"at line (\d+)", caught.value.message)
        assert found
        named.append(int(found[1]))
    assert named[0] == named[1]
    return named[0]


# What is written.


def test_an_entry_says_what_was_charged(tmp_path: Path) -> None:
    first, second = charged(tmp_path, 1, 2)
    assert Ledger(tmp_path).entries() == [first, second]
    assert (first.number, second.number, first.previous, second.previous) == (1, 2, "0" * 64, first.hash)
    assert first.charge == charge(1) and second.charge == charge(2)
    assert first.nonce != second.nonce and first.hash != second.hash
    assert first.time.endswith("+00:00")
    assert first.epsilon_study == first.epsilon_total < second.epsilon_study
    lines = (tmp_path / LEDGER_FILE).read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2]


def test_an_empty_folder_has_spent_nothing_and_reading_makes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.entries() == [] and ledger.total() == ledger.spent(RUN) == 0.0
    assert list(tmp_path.iterdir()) == []


def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        charged(tmp_path / "site", 1)
    finally:
        os.umask(old)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "site").iterdir()}
    assert modes == dict.fromkeys([LEDGER_FILE, LOCK_FILE, SECRET_FILE], 0o600)


@pytest.mark.parametrize(
    "terms",
    [
        {"run": "Not-Hex"},
        {"round": 0},
        {"units": 0},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": math.nan},
        {"sample_rate": 0.0},
        {"sample_rate": 1.1},
        {"steps": 0},
        {"steps": -5},
        {"delta": 0.0},
        {"delta": 1.0},
        {"inputs": "short"},
        {"accountant": "none"},
        {"unit": "hospital"},
        {"study": "a}"},
        {"more": 1},
    ],
)
def test_what_could_not_be_accounted_for_is_no_charge(terms: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        charge(**terms)


# The budget.


def independent(history: list[tuple[float, float, int]], accountant: str) -> float:
    """By Opacus' own step-by-step interface, without anything of ours."""
    account = PRVAccountant() if accountant == "prv" else RDPAccountant()
    for noise, rate, steps in history:
        for _ in range(steps):
            account.step(noise_multiplier=noise, sample_rate=rate)
    return float(account.get_epsilon(delta=1e-5))


def exact_gaussian(noise: float, steps: int, delta: float) -> float:
    """Epsilon of steps that read everybody, in closed form (Balle and Wang 2018)."""
    mu = math.sqrt(steps) / noise
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        spent = norm.cdf(mu / 2 - middle / mu) - math.exp(middle) * norm.cdf(-mu / 2 - middle / mu)
        low, high = (middle, high) if spent > delta else (low, middle)
    return high


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_it_stops_at_the_last_round_within_the_budget(tmp_path: Path, accountant: str) -> None:
    """The last one as Opacus counts, who may differ a little: the cap lies midway between two rounds."""
    allowed = 6
    by_opacus = [independent([(1.1, 0.05, 20 * rounds)], accountant) for rounds in range(1, allowed + 2)]
    cap = (by_opacus[-2] + by_opacus[-1]) / 2
    for number in range(1, allowed + 1):
        entry = Ledger(tmp_path).charge(charge(number, accountant=accountant), study_cap=cap, total_cap=None)
        assert entry.epsilon_study == pytest.approx(by_opacus[number - 1], rel=NEAR)
    assert refused(tmp_path, charge(allowed + 1, accountant=accountant), study_cap=cap) == "budget-spent"
    assert refused(tmp_path, charge(allowed + 1, accountant=accountant), total_cap=cap) == "budget-spent"
    assert refused(tmp_path, charge(allowed + 7, accountant=accountant), study_cap=cap) == "budget-spent"
    assert Ledger(tmp_path).spent(RUN) == Ledger(tmp_path).total() == entry.epsilon_study <= cap


def test_epsilon_is_an_upper_bound_of_the_exact_one(tmp_path: Path) -> None:
    for number in range(1, 6):
        (entry,) = charged(tmp_path, number, noise_multiplier=8.0, sample_rate=1.0, steps=4, accountant="prv")
        exact = exact_gaussian(8.0, 4 * number, 1e-5)
        assert exact <= entry.epsilon_study <= exact + 0.03


def test_studies_are_counted_apart_and_together(tmp_path: Path) -> None:
    charged(tmp_path, 1, 2, accountant="prv")
    charged(tmp_path, 1, run=OTHER, noise_multiplier=0.9, study="second", unit="note", accountant="prv")
    (last,) = charged(tmp_path, 3, accountant="prv")
    ledger, mixed = Ledger(tmp_path), [(1.1, 0.05, 60), (0.9, 0.05, 20)]
    assert ledger.spent(RUN) == last.epsilon_study == pytest.approx(independent(mixed[:1], "prv"), rel=NEAR)
    assert ledger.spent(OTHER) == pytest.approx(independent(mixed[1:], "prv"), rel=NEAR)
    assert ledger.total() == last.epsilon_total == pytest.approx(independent(mixed, "prv"), rel=NEAR)
    assert ledger.spent("cc33") == 0.0


def test_a_new_run_does_not_forget_what_others_spent(tmp_path: Path) -> None:
    charged(tmp_path, 1, 2, 3)
    spent = Ledger(tmp_path).total()
    assert refused(tmp_path, charge(1, OTHER), study_cap=100.0, total_cap=spent) == "budget-spent"
    enough = epsilon_of([(1.1, 0.05, 80)], 1e-5, "rdp")
    entry = Ledger(tmp_path).charge(charge(1, OTHER), study_cap=100.0, total_cap=enough)
    assert entry.epsilon_study < entry.epsilon_total == enough


def test_the_cap_itself_may_be_spent(tmp_path: Path) -> None:
    cap = epsilon_of([(1.1, 0.05, 20)], 1e-5, "rdp")
    assert refused(tmp_path, charge(), study_cap=cap * (1 - 1e-6)) == "budget-spent"
    assert Ledger(tmp_path).charge(charge(), study_cap=cap, total_cap=None).epsilon_study == cap


@pytest.mark.parametrize("epsilon", [math.inf, math.nan])
@pytest.mark.parametrize("cap", [None, 8.0])
def test_no_number_is_within_no_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epsilon: float, cap: float | None
) -> None:
    """The PRV accountant gives infinity for what is hardly private."""
    monkeypatch.setattr(client.ledger, "epsilon_of", lambda *_: epsilon)
    assert refused(tmp_path, charge(), study_cap=cap) == "budget-spent"
    assert refused(tmp_path, charge(), total_cap=cap) == "budget-spent"


# A round that comes again.


def test_a_charged_round_is_not_charged_again(tmp_path: Path) -> None:
    first, second = charged(tmp_path, 1, 2)
    before = (tmp_path / LEDGER_FILE).read_bytes()
    assert charged(tmp_path, 2, 1, 2) == [second, first, second]
    assert Ledger(tmp_path).charge(charge(1), study_cap=0.0, total_cap=0.0) == first  # it was paid for
    assert (tmp_path / LEDGER_FILE).read_bytes() == before


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": "ce" * 32},
        {"study": "second"},
        {"plan_hash": "ac" * 32},
        {"unit": "note"},
        {"units": 1001},
        {"noise_multiplier": 1.2},
        {"sample_rate": 0.04},
        {"steps": 19},
        {"delta": 1e-6},
        {"accountant": "prv"},
    ],
)
def test_a_charged_round_that_changed_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    charged(tmp_path, 1, 2)
    assert refused(tmp_path, charge(1, **changed)) == refused(tmp_path, charge(2, **changed)) == "round-changed"


def test_a_round_from_before_is_refused_and_one_may_be_missed(tmp_path: Path) -> None:
    charged(tmp_path, 2, 5)
    for past in (1, 3, 4):
        assert refused(tmp_path, charge(past)) == "round-replayed"
    assert [entry.round for entry in charged(tmp_path, 1, run=OTHER)] == [1]
    assert [entry.round for entry in charged(tmp_path, 6)] == [6]


def test_one_site_has_one_delta(tmp_path: Path) -> None:
    charged(tmp_path, 1)
    with pytest.raises(InputError, match=r"delta 1e-06.*at 1e-05") as caught:
        charged(tmp_path, 1, run=OTHER, delta=1e-6)
    assert caught.value.code == refused(tmp_path, charge(2, delta=1e-6)) == "delta-changed"


# Damage.


def lines_of(folder: Path) -> list[str]:
    return (folder / LEDGER_FILE).read_text().splitlines()


def put(folder: Path, lines: list[str]) -> None:
    (folder / LEDGER_FILE).write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("field", list(Entry.model_fields))
def test_any_edited_field_is_found(tmp_path: Path, field: str) -> None:
    charged(tmp_path, 1, 2, 3)
    whole = lines_of(tmp_path)
    for place in range(3):
        entry = json.loads(whole[place])
        old = entry[field]
        if field in ("unit", "accountant"):
            entry[field] = {"patient": "note", "rdp": "prv"}[old]
        elif isinstance(old, str):
            entry[field] = old[:-1] + ("1" if old[-1] == "0" else "0")
        else:
            entry[field] = old / 2 if isinstance(old, float) else old + 1
        put(tmp_path, [*whole[:place], json.dumps(entry, separators=(",", ":")), *whole[place + 1 :]])
        assert damaged_at(tmp_path) == place + 1


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    charged(tmp_path, 1, 2)
    file = tmp_path / LEDGER_FILE
    data = file.read_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(MachineError, match="damaged at line"):
            Ledger(tmp_path).entries()


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], lines[2]], 2),
        (lambda lines: [lines[1], lines[0], lines[2]], 1),
        (lambda lines: [*lines, lines[2]], 4),
        (lambda lines: [*lines, "", ""], 4),
        (lambda lines: [*lines[:2], lines[2].replace('":', '": ')], 3),
        (lambda lines: [*lines[:2], lines[2].replace('"round":3', '"round":3,"round":3')], 3),
        (lambda lines: ["[]", *lines[1:]], 1),
        (lambda lines: [lines[0], "\x00" * 80, lines[2]], 2),
    ],
)
def test_other_edits_are_found(tmp_path: Path, edit: Callable[[list[str]], list[str]], line: int) -> None:
    charged(tmp_path, 1, 2, 3)
    put(tmp_path, edit(lines_of(tmp_path)))
    assert damaged_at(tmp_path) == line


@pytest.mark.parametrize("number", [2, 3])
def test_a_line_that_is_whole_in_itself_must_follow_the_one_before(tmp_path: Path, number: int) -> None:
    """A line of another ledger, and one that was made anew under a wrong number, with its hash."""
    charged(tmp_path, 1, 2)
    line = lines_of(tmp_path)[0]
    other = charged(tmp_path / "other", 1, 2)[1]
    if number == 3:
        changed = other.model_copy(update={"number": 3, "previous": json.loads(line)["hash"]})
        other = changed.model_copy(update={"hash": client.ledger._hash(changed)})
    put(tmp_path, [line, other.model_dump_json()])
    assert damaged_at(tmp_path) == 2


def test_a_torn_last_line_was_never_charged(tmp_path: Path) -> None:
    """At every length that a crash can leave: what precedes it stands, and the next charge takes its place."""
    first, second = charged(tmp_path, 1, 2)
    file = tmp_path / LEDGER_FILE
    data = file.read_bytes()
    start = data.index(b"\n") + 1
    for length in range(start, len(data) - 1, 7):
        file.write_bytes(data[:length])
        assert Ledger(tmp_path).entries() == [first]
        (again,) = charged(tmp_path, 2)
        assert Ledger(tmp_path).entries() == [first, again] and again.nonce != second.nonce
    file.write_bytes(data[:start] + b"\x00" * 50)  # what some file systems leave after a power cut
    assert [entry.round for entry in charged(tmp_path, 2, 3)] == [2, 3]


def test_a_last_line_without_its_end_of_line_counts(tmp_path: Path) -> None:
    """An editor may have taken it away, and the round may have been trained."""
    entries = charged(tmp_path, 1, 2)
    file = tmp_path / LEDGER_FILE
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    assert Ledger(tmp_path).entries() == entries and charged(tmp_path, 2) == entries[1:]
    entries += charged(tmp_path, 3)
    assert Ledger(tmp_path).entries() == entries
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert damaged_at(tmp_path) == 3


# A disk that refuses.


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 200])
@pytest.mark.parametrize("torn", [b"", b'{"run":"aa', b'{"run":"aa' * 100])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, room: int, torn: bytes) -> None:
    entries = charged(tmp_path, 1, 2)
    file = tmp_path / LEDGER_FILE
    data = file.read_bytes()
    file.write_bytes(data + torn)
    with no_file_larger_than(len(data) + room), pytest.raises(MachineError) as caught:
        charged(tmp_path, 3)
    assert caught.value.code == "disk-full" and file.read_bytes() == data
    assert charged(tmp_path, 2, 3)[0] == entries[1]


@pytest.mark.parametrize("fails", [1, 2])
def test_a_charge_that_cannot_be_made_durable_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """The first sync is of the file, the second of the folder that lists it."""
    secret_key(tmp_path)
    calls, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == fails:
            raise OSError(errno.ENOSPC, "full")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(MachineError):
        charged(tmp_path, 1)
    assert Ledger(tmp_path).entries() == [] and (tmp_path / LEDGER_FILE).read_bytes() == b""
    assert [entry.number for entry in charged(tmp_path, 1)] == [1]


def test_an_entry_that_was_found_is_made_durable_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer may have died before the disk had it; a power cut after the first step must not lose it."""
    charged(tmp_path, 1)
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (synced.append(os.fstat(d).st_ino), real(d))[1])
    charged(tmp_path, 1)
    assert synced == [(tmp_path / LEDGER_FILE).stat().st_ino, tmp_path.stat().st_ino]


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError) as caught:
        charged(tmp_path / "file", 1)
    assert caught.value.code == "unwritable"


# The secret.


def test_the_secret_is_drawn_once(tmp_path: Path) -> None:
    one, other = secret_key(tmp_path / "one"), secret_key(tmp_path / "other")
    assert len(one) == 32 and one != other
    charged(tmp_path / "one", 1)
    assert secret_key(tmp_path / "one") == one
    assert one.hex() not in (tmp_path / "one" / LEDGER_FILE).read_text()


@pytest.mark.parametrize("left", [None, b"", b"x" * 31, b"x" * 33])
def test_a_secret_that_charged_rounds_used_is_not_replaced(tmp_path: Path, left: bytes | None) -> None:
    """A round that was charged once would get a second noise."""
    charged(tmp_path, 1)
    file = tmp_path / SECRET_FILE
    file.unlink() if left is None else file.write_bytes(left)
    for act in (lambda: secret_key(tmp_path), lambda: charged(tmp_path, 1), lambda: charged(tmp_path, 2)):
        with pytest.raises(MachineError) as caught:
            act()
        assert caught.value.code == "secret-damaged"


# Processes that die, and processes that race.


def in_child(target: Callable[..., None], *arguments: Any) -> tuple[ForkServerProcess, Connection]:
    ours, theirs = server.Pipe()
    process = server.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    return process, ours


def acknowledged(connection: Connection) -> list[Any]:
    """All that a process said before it ended."""
    said = []
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            said.append(connection.recv())
    return said


def charge_and_die(connection: Connection, folder: Path, instant: str) -> None:
    """Charge round 2, and be killed at an instant: os._exit or an exception would run less like a power cut."""
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    write, fsync = os.write, os.fsync

    def deadly_write(descriptor: int, data: bytes) -> int:
        if b'"nonce"' not in data:
            return write(descriptor, data)
        if instant == "before the write":
            die()
        if instant == "in the write":
            write(descriptor, data[: len(data) // 2])
            die()
        return write(descriptor, data)

    def deadly_fsync(descriptor: int) -> None:
        if instant == "before the sync":
            die()
        fsync(descriptor)

    os.write, os.fsync = deadly_write, deadly_fsync  # type: ignore[assignment]
    (entry,) = charged(folder, 2)
    connection.send(entry)
    die()


@pytest.mark.parametrize("instant", ["before the write", "in the write", "before the sync", "before the first step"])
def test_a_kill_between_charge_and_step(tmp_path: Path, instant: str) -> None:
    (first,) = charged(tmp_path, 1)
    process, connection = in_child(charge_and_die, tmp_path, instant)
    said = acknowledged(connection)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    entries = Ledger(tmp_path).entries()
    written = instant in ("before the sync", "before the first step")
    assert [entry.round for entry in entries] == ([1, 2] if written else [1])
    (again,) = charged(tmp_path, 2)
    assert Ledger(tmp_path).entries() == [first, again]
    if written:
        assert again == entries[1]  # the same nonce: the same noise
    assert said == ([again] if instant == "before the first step" else [])


def charge_on(connection: Connection, folder: Path, run: str, caps: tuple[float | None, float | None]) -> None:
    """Charge rounds until the budget is spent (or for ever), and say each number when it is safe."""
    connection.recv()
    for number in range(1, 10**6):
        try:
            wanted = charge(number, run, sample_rate=1.0, noise_multiplier=30.0, steps=1)
            entry = Ledger(folder).charge(wanted, study_cap=caps[0], total_cap=caps[1])
        except InputError as error:
            connection.send(error.code)
            return
        connection.send(entry.number)


def test_killed_again_and_again_the_chain_is_whole_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    safe: set[int] = set()
    hashes: list[str] = []
    for life in range(12):
        process, connection = in_child(charge_on, tmp_path, f"{life:02x}", (None, None))
        connection.send("go")
        safe.add(connection.recv())
        time.sleep(0.003 * life)
        process.kill()
        safe.update(acknowledged(connection))
        process.join()
        entries = Ledger(tmp_path).entries()
        assert safe <= {entry.number for entry in entries}
        assert [entry.hash for entry in entries[: len(hashes)]] == hashes
        hashes = [entry.hash for entry in entries]
    assert len(hashes) - len(safe) <= 12  # at most one a life was written and not said
    assert len(safe) > 24


def test_two_processes_charge_at_once(tmp_path: Path) -> None:
    """Both go on until the budget of all studies is spent: together they spend it to the last round, and no more."""
    steps = 60
    cap = epsilon_of([(30.0, 1.0, steps)], 1e-5, "rdp")
    children = [in_child(charge_on, tmp_path, run, (None, cap)) for run in (RUN, OTHER)]
    for _, connection in children:
        connection.send("go")
    said = [acknowledged(connection) for _, connection in children]
    for process, _ in children:
        process.join()
        assert process.exitcode == 0
    assert [numbers.pop() for numbers in said] == ["budget-spent", "budget-spent"]
    assert all(len(numbers) > 1 for numbers in said), "they did not race"
    entries = Ledger(tmp_path).entries()
    assert sorted(said[0] + said[1]) == [entry.number for entry in entries] == list(range(1, steps + 1))
    for run, numbers in zip((RUN, OTHER), said, strict=True):
        assert [entry.number for entry in entries if entry.run == run] == numbers
    assert len({entry.nonce for entry in entries}) == steps
    assert Ledger(tmp_path).total() == cap


def test_two_processes_charge_the_same_round_once(tmp_path: Path) -> None:
    children = [in_child(charge_on, tmp_path, RUN, (0.3, None)) for _ in range(2)]
    for _, connection in children:
        connection.send("go")
    said = [acknowledged(connection) for _, connection in children]
    assert said[0] == said[1] == [*range(1, len(said[0])), "budget-spent"]
    assert len(Ledger(tmp_path).entries()) == len(said[0]) - 1 > 1


def ask_for_secret(connection: Connection, folder: Path) -> None:
    connection.recv()
    connection.send(secret_key(folder))


def test_processes_that_ask_at_once_get_one_secret(tmp_path: Path) -> None:
    for attempt in range(5):
        children = [in_child(ask_for_secret, tmp_path / str(attempt)) for _ in range(3)]
        for _, connection in children:
            connection.send("go")
        (secrets,) = {tuple(acknowledged(connection)) for _, connection in children}
        assert secrets == (secret_key(tmp_path / str(attempt)),)


def test_readers_see_whole_entries_while_threads_write(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=charged, args=(tmp_path, *range(1, 16)), kwargs={"run": r}) for r in (RUN, OTHER)
    ]
    for thread in threads:
        thread.start()
    seen = [0]
    while any(thread.is_alive() for thread in threads):
        seen.append(len(Ledger(tmp_path).entries()))
    assert seen == sorted(seen) and len(Ledger(tmp_path).entries()) == 30

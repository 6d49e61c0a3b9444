"""The password's file, who is logged in, and how fast passwords may be guessed."""

import stat
import time
from pathlib import Path

import pytest

from common.errors import InputError
from server.dashboard import sessions
from server.dashboard.passwords import read_password, write_password
from server.dashboard.sessions import Sessions, Slowdown, network


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is: `clock[0]`."""
    now = [1000.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])
    return now


def test_a_password_is_kept_as_a_hash_that_this_user_alone_may_read(tmp_path: Path) -> None:
    path = tmp_path / "password"
    write_password("four words are enough", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "four words" not in path.read_text() and path.read_text().startswith("scrypt$65536$8$1$")
    kept = read_password(path)
    assert kept.matches("four words are enough")
    assert not kept.matches("four words are enougH") and not kept.matches("")
    first = path.read_text()
    write_password("four words are enough", path)
    assert path.read_text() != first  # another salt


def test_a_letter_that_two_keyboards_send_in_two_ways_is_one(tmp_path: Path) -> None:
    write_password("rose\u0301 and tea at noon", tmp_path / "password")
    assert read_password(tmp_path / "password").matches("ros\u00e9 and tea at noon")


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_a_password_has_a_length(tmp_path: Path, password: str) -> None:
    with pytest.raises(InputError) as raised:
        write_password(password, tmp_path / "password")
    assert raised.value.code == "password-length"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "correct horse battery staple",
        "scrypt$65536$8$1$AAAA$AAAA",
        "scrypt$4$8$1$" + "A" * 24 + "$" + "A" * 88,  # as good as no work
        "scrypt$1048576$64$8$" + "A" * 24 + "$" + "A" * 88,  # more memory than is given
        "scrypt$x$8$1$AAAA$AAAA",
    ],
)
def test_what_is_no_hash_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "password"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(InputError) as raised:
        read_password(path)
    assert raised.value.code == "password-unreadable" and "horse" not in str(raised.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    write_password("four words are enough", path)
    path.chmod(0o640)
    with pytest.raises(InputError) as raised:
        read_password(path)
    assert raised.value.code == "password-exposed"


def test_a_session_ends_when_nobody_is_there_and_at_its_end_all_the_same(clock: list[float]) -> None:
    known = Sessions(idle=100, longest=1000)
    cookie = known.begin()
    for _ in range(9):
        clock[0] += 99
        assert known.find(cookie, touch=True)
    clock[0] += 99
    assert known.find(cookie)  # looked at, not touched
    clock[0] += 2
    assert known.find(cookie) is None
    cookie = known.begin()
    for _ in range(10):
        clock[0] += 99
        assert known.find(cookie, touch=True)
    clock[0] += 11
    assert known.find(cookie, touch=True) is None


def test_a_session_that_was_ended_is_gone_and_no_other_cookie_is_one() -> None:
    known = Sessions(100, 1000)
    cookie, other = known.begin(), known.begin()
    assert cookie != other and known.find(cookie)
    known.end(cookie)
    assert known.find(cookie) is None and known.find(other)
    for wrong in (None, "", other[:-1], other + "x"):
        assert known.find(wrong) is None


def test_sessions_and_guessers_are_bounded() -> None:
    known = Sessions(100, 1000)
    first = known.begin()
    for _ in range(1000):
        last = known.begin()
    assert known.find(first) is None and known.find(last)
    slow = Slowdown(1, 10)
    for number in range(10_500):
        slow.failed(str(number))
    assert len(slow._failed) == 10_000


def test_each_failure_doubles_the_wait(clock: list[float]) -> None:
    slow = Slowdown(free=3, most=60)
    waits = []
    for _ in range(9):
        waits.append(slow.wait("a"))
        slow.failed("a")
    assert waits == [0, 0, 0, 2, 4, 8, 16, 32, 60]
    assert slow.wait("b") == 0
    clock[0] += 60
    assert slow.wait("a") == 0
    slow.succeeded("a")
    slow.failed("a")
    assert slow.wait("a") == 0


def test_a_day_without_failures_forgives(clock: list[float]) -> None:
    slow = Slowdown(free=1, most=60)
    slow.failed("a")
    slow.failed("a")
    clock[0] += 86401
    slow.failed("a")
    assert slow.wait("a") == 2.0


def test_a_household_is_one_guesser() -> None:
    assert network("192.0.2.7") != network("192.0.2.8")
    assert network("2001:db8:1:2::3") == network("2001:db8:1:2:ffff::1") != network("2001:db8:1:3::3")
    assert network("fe80::1%eth0") == network("fe80::2")


def test_a_check_takes_as_long_for_a_wrong_password(tmp_path: Path) -> None:
    write_password("four words are enough", tmp_path / "password")
    kept = read_password(tmp_path / "password")
    began = time.monotonic()
    kept.matches("x")
    assert time.monotonic() - began > 0.02  # scrypt was computed

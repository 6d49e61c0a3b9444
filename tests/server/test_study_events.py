"""Events survive a kill in the middle of a line, and a reader sees each once."""

from pathlib import Path

from server.rounds import Event
from server.study.events import EVENTS_FILE, EventLog, EventReader

FIRST, SECOND = Event("asked", 1, "north"), Event("left-out", 1, "Ærø\n", 'it said "no"')


def test_what_is_written_is_read_once_and_in_order(tmp_path: Path) -> None:
    reader = EventReader(tmp_path)
    assert list(reader.new()) == []
    log = EventLog(tmp_path)
    log(FIRST)
    ((time, event),) = reader.new()
    assert event == FIRST and time.endswith("+00:00")
    log(SECOND)
    assert [event for _, event in reader.new()] == [SECOND] and list(reader.new()) == []
    assert [event for _, event in EventReader(tmp_path).new()] == [FIRST, SECOND]


def test_every_cut_of_the_file_leaves_whole_events(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log(FIRST)
    log(SECOND)
    whole = (tmp_path / EVENTS_FILE).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole) + 1):
        (tmp_path / EVENTS_FILE).write_bytes(whole[:cut])
        expected = [FIRST] * (cut >= first) + [SECOND] * (cut == len(whole))
        reader = EventReader(tmp_path)
        assert [event for _, event in reader.new()] == expected
        EventLog(tmp_path)(FIRST)  # whoever writes next goes on after the broken line
        assert [event for _, event in EventReader(tmp_path).new()][-1] == FIRST
        assert [event for _, event in reader.new()][-1:] == [FIRST]


def test_what_is_no_event_is_left_aside(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).write_text(
        '7\n[]\n{"time": "now"}\n{"time": 1, "kind": "asked", "round": 1, "more": 2}\nx\n'
    )
    EventLog(tmp_path)(FIRST)
    assert [event for _, event in EventReader(tmp_path).new()] == [FIRST]

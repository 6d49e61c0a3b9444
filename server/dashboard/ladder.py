"""Sites by rounds: who trains, who has answered, who is late, refused or out; the newest rounds at the right."""

from dataclasses import dataclass
from datetime import UTC, datetime

from server.dashboard.rendering import rendered
from server.incidents import SiteState, sentence
from server.record.reader import SiteNow, StudyRecord
from server.report.words import duration
from server.study.verdict import is_late

MOST_ROUNDS = 40  # columns; what is older is in the report and in the tables

# state -> mark and words; the mark differs in form, for those who cannot tell colours
MARKS: dict[SiteState, tuple[str, str]] = {
    "waiting": ("·", "waiting for its turn"),
    "sending": ("↑", "being sent the weights"),
    "training": ("…", "training"),
    "returned": ("✓", "returned"),
    "late": ("◷", "did not answer in time"),
    "refused": ("⊘", "refused by its own policy"),
    "failed": ("✕", "failed"),
    "out": ("–", "out"),
}


@dataclass(frozen=True)
class Cell:
    state: SiteState
    mark: str
    words: str


@dataclass(frozen=True)
class Row:
    site: str
    cells: list[Cell | None]
    now: str
    state: SiteState
    slow: bool = False  # it takes longer than it usually does


def ladder_section(record: StudyRecord, key: str, site: str) -> str:
    numbers = [number for number in sorted(record.begun) if number > 0]
    shown = numbers[-MOST_ROUNDS:]
    now = datetime.now(UTC)
    names = [one.name for one in record.sites if not site or one.name == site]
    by_round = {number: {one.site: one for one in record.progress.get(number, [])} for number in shown}
    rows = [_row(record, name, [by_round[number].get(name) for number in shown], now) for name in names]
    left_out = [(name, reason) for name, (reason, _) in record.left_out.items() if not site or name == site]
    used = {cell.state for row in rows for cell in row.cells if cell}
    return rendered(
        "ladder.html",
        key=key,
        rounds=shown,
        older=len(numbers) - len(shown),
        rows=rows,
        legend=[(state, *MARKS[state]) for state in MARKS if state in used],
        left_out=left_out,
    )


def _row(record: StudyRecord, name: str, did: list[SiteNow | None], now: datetime) -> Row:
    cells = [_cell(one) if one else None for one in did]
    last = next((one for one in reversed(did) if one), None)
    if last is None:
        return Row(name, cells, "has not been asked yet", "waiting")
    state = last.state
    text, slow = MARKS[state][1], False
    if state in ("sending", "training") and record.state != "running":
        text = f"was {text} when the study was {record.state}"
    elif state in ("sending", "training") and last.asked:
        text += f" since {duration((now - last.asked).total_seconds())}"
        if slow := is_late(record, last, now):
            text += ", longer than usual"
    elif state not in ("returned", "waiting"):
        text = f"out since round {_since(record, name)}: {sentence('the site', last.code)}" if last.code else text
    return Row(name, cells, text, state, slow)


def _since(record: StudyRecord, name: str) -> int:
    """The first of the rounds in a row, up to now, that the site was not in."""
    first = 0
    for number in sorted(record.progress, reverse=True):
        one = next((one for one in record.progress[number] if one.site == name), None)
        if one is None or one.state in ("returned", "waiting", "sending", "training"):
            break
        first = number
    return first


def _cell(one: SiteNow) -> Cell:
    mark, text = MARKS[one.state]
    if one.state == "returned" and one.asked and one.returned:
        text += f" after {duration((one.returned - one.asked).total_seconds())}"
    elif one.code:
        text = f"{text}: {one.reason}"
    return Cell(one.state, mark, f"round {one.round}: {text}")

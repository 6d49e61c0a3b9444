"""The privacy ledger of a site: what training has spent of the privacy of its patients or notes.

One ledger for a site and its notes, for all studies, objectives and trials. It is written ahead: a round is charged
here, and the charge is on the disk, before its first step; nothing is ever refunded. `ledger.jsonl` only grows. Each
line has the SHA-256 of itself and of the line before it, so that whatever is edited afterwards is found. A file whose
end was cut off looks whole by itself: the receipts of what left the site (client/receipt.py) find that.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InputError, MachineError
from common.files import explained, new_file
from common.privacy import epsilon_of

LEDGER_FILE, LOCK_FILE, SECRET_FILE = "ledger.jsonl", "ledger.lock", "secret.key"
_HASH = r"^[0-9a-f]{64}$"
_NONE_BEFORE = "0" * 64
_SECRET_BYTES = 32


class Charge(BaseModel):
    """What a round of private training is about to spend.

    `run` is the coordinator's random id of the run (hex). `inputs` is a SHA-256 over all that the round is computed
    from: start weights, the notes' digest, and the terms.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    run: str = Field(pattern=r"^[0-9a-f]+$")
    study: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    plan_hash: str = Field(pattern=r"^[0-9a-f]+$")
    round: int = Field(ge=1)
    unit: Literal["patient", "note"]
    units: int = Field(ge=1)
    noise_multiplier: float = Field(gt=0.0)
    sample_rate: float = Field(gt=0.0, le=1.0)
    steps: int = Field(ge=1)
    delta: float = Field(gt=0.0, lt=1.0)
    accountant: Literal["prv", "rdp"]
    inputs: str = Field(pattern=_HASH)


class Entry(Charge):
    """A line of the ledger.

    `nonce` keys the randomness of this round's training, together with the site's secret. `epsilon_study` is what the
    run has spent with this entry, `epsilon_total` what all runs have.
    """

    number: int
    time: str
    nonce: str = Field(pattern=_HASH)
    epsilon_study: float
    epsilon_total: float
    previous: str = Field(pattern=_HASH)
    hash: str = Field(pattern=_HASH)

    @property
    def charge(self) -> Charge:
        return Charge.model_validate(self.model_dump(include=set(Charge.model_fields)))


class Ledger:
    """The ledger in a site's folder. Any number of processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / LEDGER_FILE
        self._lock = folder / LOCK_FILE

    def entries(self) -> list[Entry]:
        """All of them, verified. Raises MachineError "ledger-damaged", which names the first line that is wrong."""
        if not self._lock.exists():  # no charge yet, or a copy that nobody writes to
            return self._read()[0]
        with locked(self._lock, shared=True):
            return self._read()[0]

    def charge(self, charge: Charge, *, study_cap: float | None, total_cap: float | None) -> Entry:
        """Charge a round before its first step; on return the entry is on the disk, whatever happens next.

        A round that was charged before, on equal terms and inputs, is not charged again: a crash kept it from its end,
        and with the same nonce it draws the same noise. A cap of None is no cap.

        Raises:
            InputError: "round-changed", "round-replayed", "delta-changed" or "budget-spent"; nothing was written.
            MachineError: the ledger or the secret is damaged, or the disk refuses; the ledger is as it was.
        """
        with locked(self._lock):
            _secret(self.folder)  # an entry without the secret that its noise was made with could not be repeated
            entries, whole = self._read()
            found = _charged_before(entries, charge)
            if found is None:
                found = _entry(entries, charge, study_cap, total_cap)
                self._append(whole, found)
            else:
                with explained(self.file):
                    self._sync()  # whoever wrote it may have died before it was on the disk
            return found

    def spent(self, run: str) -> float:
        """Epsilon of one run so far."""
        return next((entry.epsilon_study for entry in reversed(self.entries()) if entry.run == run), 0.0)

    def total(self) -> float:
        """Epsilon of all runs so far."""
        return next((entry.epsilon_total for entry in reversed(self.entries())), 0.0)

    def _read(self) -> tuple[list[Entry], bytes]:
        """The entries, and the bytes that hold them: all but a last line that a crash tore."""
        with explained(self.file):
            try:
                data = self.file.read_bytes()
            except FileNotFoundError:
                return [], b""
        *lines, last = data.split(b"\n")
        # A line ends with its only brace: up to there it may have been charged, and short of that it never was.
        if b"}" in last:
            lines.append(last)
            last = b""
        return list(self._verified(lines)), data[: len(data) - len(last)]

    def _verified(self, lines: list[bytes]) -> Iterator[Entry]:
        previous = _NONE_BEFORE
        for number, line in enumerate(lines, 1):
            try:
                entry = Entry.model_validate_json(line)
            except ValidationError:
                raise self._damaged(number) from None
            chained = entry.number == number and entry.previous == previous and entry.hash == _hash(entry)
            if not chained or entry.model_dump_json().encode() != line:
                raise self._damaged(number)
            previous = entry.hash
            yield entry

    def _damaged(self, number: int) -> MachineError:
        return MachineError(
            "ledger-damaged",
            f"The privacy ledger {self.file} is damaged at line {number}.",
            "Put it back from a backup: without a whole ledger the site takes part in no private training.",
        )

    def _append(self, whole: bytes, entry: Entry) -> None:
        """Add a line after the bytes that are `whole`; where the disk refuses it, nothing is added."""
        line = entry.model_dump_json().encode() + b"\n"
        if whole and not whole.endswith(b"\n"):
            line = b"\n" + line
        with explained(self.file):
            descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.ftruncate(descriptor, len(whole))
                if os.write(descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._sync()
            except OSError:
                with contextlib.suppress(OSError):  # part of a line is no entry, and all of it was charged in vain
                    os.ftruncate(descriptor, len(whole))
                raise
            finally:
                os.close(descriptor)

    def _sync(self) -> None:
        for path in (self.file, self.folder):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def secret_key(folder: Path) -> bytes:
    """The site's secret of 32 bytes, drawn when it is first asked for; it never leaves the site.

    Raises:
        MachineError: "secret-damaged": it has another length, or it is gone though rounds were charged that used it.
    """
    with locked(folder / LOCK_FILE):
        return _secret(folder)


def _secret(folder: Path) -> bytes:
    """Under the lock."""
    file = folder / SECRET_FILE
    if not file.exists() and not (folder / LEDGER_FILE).exists():
        with new_file(file) as scratch:
            scratch.touch(0o600)
            scratch.write_bytes(os.urandom(_SECRET_BYTES))
    with explained(file):
        secret = file.read_bytes() if file.exists() else b""
    if len(secret) != _SECRET_BYTES:
        # A new one would make other noise for a round that was charged once, and two noises tell more than one.
        raise MachineError(
            "secret-damaged",
            f"The site's secret {file} is missing or not of {_SECRET_BYTES} bytes.",
            f"Put it back from a backup. When no study is under way, {_SECRET_BYTES} new random bytes will do.",
        )
    return secret


@contextlib.contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock file, alone or (`shared`) with other readers; a killed process holds nothing."""
    with explained(path):
        if not shared:
            path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _hash(entry: Entry) -> str:
    return hashlib.sha256(entry.model_dump_json(exclude={"hash"}).encode()).hexdigest()


def _charged_before(entries: list[Entry], charge: Charge) -> Entry | None:
    """The entry of this very round, if it has one. Raises InputError where the round may not be trained at all."""
    same_run = {entry.round: entry for entry in entries if entry.run == charge.run}
    if found := same_run.get(charge.round):
        if found.charge == charge:
            return found
        raise InputError(
            "round-changed",
            f"Round {charge.round} of study {charge.study} was charged before, with other weights, notes or terms.",
            "Start the study as a new run: a round that was charged is not trained in another way.",
        )
    if same_run and charge.round < (newest := max(same_run)):
        raise InputError(
            "round-replayed",
            f"Round {charge.round} of study {charge.study} is past: this site was charged for round {newest}.",
            "Go on from a later round, or start the study as a new run.",
        )
    return None


def _entry(entries: list[Entry], charge: Charge, study_cap: float | None, total_cap: float | None) -> Entry:
    """The line to add. Raises InputError where the charge may not be made."""
    if other := next((entry.delta for entry in entries if entry.delta != charge.delta), None):
        raise InputError(
            "delta-changed",
            f"Study {charge.study} counts at delta {charge.delta:g}, this site's ledger at {other:g}.",
            f"Set privacy.delta = {other:g} in the plan: what a site spends can be summed at one delta only.",
        )
    study = _epsilon([*(entry for entry in entries if entry.run == charge.run), charge])
    total = _epsilon([*entries, charge])
    _within(study, None if study_cap is None else study_cap * (1 + 1e-9), charge, "the study")
    _within(total, total_cap, charge, "all studies of the site")
    unsigned = Entry(
        **charge.model_dump(),
        number=len(entries) + 1,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        nonce=os.urandom(32).hex(),
        epsilon_study=study,
        epsilon_total=total,
        previous=entries[-1].hash if entries else _NONE_BEFORE,
        hash=_NONE_BEFORE,
    )
    return unsigned.model_copy(update={"hash": _hash(unsigned)})


def _epsilon(charges: Iterable[Charge]) -> float:
    """Of all charges, by the accountant and at the delta of the last."""
    charges = list(charges)
    history = [(charge.noise_multiplier, charge.sample_rate, charge.steps) for charge in charges]
    return epsilon_of(history, charges[-1].delta, charges[-1].accountant)


def _within(epsilon: float, cap: float | None, charge: Charge, of: str) -> None:
    """Raise InputError unless epsilon is a number within the cap: an accountant may give infinity or NaN, too."""
    if not epsilon <= (sys.float_info.max if cap is None else cap):
        most = "any bound" if cap is None else f"the {cap:g} that are allowed"
        raise InputError(
            "budget-spent",
            f"Round {charge.round} of study {charge.study} would bring the epsilon of {of} to {epsilon:.6g}, "
            f"above {most}.",
            "Nothing was trained or spent. Plan fewer rounds or more noise; what was spent before stays spent.",
        )

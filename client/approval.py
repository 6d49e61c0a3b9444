"""Approvals: who at this site agreed to which plan, when, and with which package, signed with the site's key.

`approvals.jsonl` only grows. Each line has the SHA-256 of itself and of the line before it, and a signature of that by
the site's key, so that a line which was edited, taken out or copied from another site is found. `approvals.head` is a
copy of the last line, written first: it finds a file whose end was cut off, where a withdrawal may have stood. Whoever
has the key, or puts both files back as they once were, can still deceive: the folder is for the site's own user alone.
"""

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from client.ledger import locked
from client.node.keys import PrivateKey, load_key
from client.site import Site
from common.errors import FednotesError, InputError, MachineError
from common.files import explained, write_text
from common.kit import read_answer
from common.package import package_digest
from common.plan import StudyPlan

APPROVALS_FILE, HEAD_FILE, _LOCK_FILE = "approvals.jsonl", "approvals.head", "approvals.lock"
KEY_REPLY = "{}.key.json"
_HASH = r"^[0-9a-f]{64}$"
_NONE_BEFORE = "0" * 64
_PURPOSE = b"fednotes approval\0"  # so that what is signed here means nothing anywhere else


class Approval(BaseModel):
    """A line. `by` is the person's name, `package` the digest of the package that was installed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    number: int = Field(ge=1)
    time: str
    site: str
    by: str = Field(min_length=1, max_length=100)
    decision: Literal["approved", "withdrawn"]
    study: str
    plan_hash: str = Field(pattern=_HASH)
    package: str = Field(pattern=_HASH)
    version: str
    previous: str = Field(pattern=_HASH)
    hash: str = Field(pattern=_HASH)
    signature: str = Field(pattern=r"^[0-9a-f]+$")

    @field_validator("by")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("a name is one line of letters")
        return value


def approved(site: Site, plan: StudyPlan) -> None:
    """Whether the site may do what the plan asks. A plan that was withdrawn is refused in any case; one that nobody
    approved, where the policy asks for approval.

    Raises:
        FednotesError: `plan-not-approved`, or `package-changed`: another package was installed when it was approved.
        MachineError: `approvals-damaged`.
        InputError: the site's key cannot be had: `no-coordinator`, or as `load_key`.
    """
    last = next((one for one in reversed(approvals(site)) if one.plan_hash == plan.hash()), None)
    needed = site.config.policy.require_approval
    if last is None and not needed:
        return
    if last is None or last.decision == "withdrawn":
        what = "has not been approved" if last is None else "was approved and withdrawn"
        raise FednotesError(
            "plan-not-approved",
            f"The plan of study {plan.study.name} ({plan.hash()[:12]}) {what} at {site.name}.",
            "Look at it with `fednotes site inspect`, then `fednotes site approve`.",
        )
    if needed and last.package != package_digest():
        raise FednotesError(
            "package-changed",
            f"The plan of study {plan.study.name} was approved with fednotes {last.version} ({last.package[:12]}); "
            f"installed is {version('fednotes')} ({package_digest()[:12]}).",
            "If the change is wanted, approve the plan again.",
        )


def approvals(site: Site) -> list[Approval]:
    """All of them, oldest first, verified. Raises MachineError `approvals-damaged`, and as `load_key`."""
    file, head = site.folder / APPROVALS_FILE, site.folder / HEAD_FILE
    with explained(file):
        lines = file.read_bytes().splitlines() if file.exists() else []
        newest = head.read_bytes() if head.exists() else None
    if newest is None and not lines:
        return []
    if newest is None:
        raise _damaged(file, "at its end")
    if newest not in lines[-1:]:  # it was written first, and then the machine stopped
        lines.append(newest)
    key = _public_key(site)
    found: list[Approval] = []
    for number, line in enumerate(lines, 1):
        try:
            one = Approval.model_validate_json(line)
        except ValidationError:
            raise _damaged(file, f"at line {number}") from None
        chained = one.number == number and one.previous == (found[-1].hash if found else _NONE_BEFORE)
        whole = one.hash == _hash(one) and one.model_dump_json().encode() == line
        if not (chained and whole and one.site == site.name and _signed(key, one)):
            raise _damaged(file, f"at line {number}")
        found.append(one)
    return found


def approval_of(site: Site, plan: StudyPlan) -> Approval | None:
    """The approval of the plan that stands; None where there is none. Raises as `approvals`."""
    last = next((one for one in reversed(approvals(site)) if one.plan_hash == plan.hash()), None)
    return last if last and last.decision == "approved" else None


def record(site: Site, plan: StudyPlan, decision: Literal["approved", "withdrawn"], by: str) -> Approval:
    """Write a decision down; on return it is on the disk.

    Raises:
        InputError: `usage`: `by` is no name; `no-coordinator`, or as `load_key`.
        MachineError: `approvals-damaged`, or the disk refuses: nothing was written.
    """
    file = site.folder / APPROVALS_FILE
    with locked(site.folder / _LOCK_FILE):
        before, key = approvals(site), load_key(site.coordinator.key)
        try:
            blank = Approval(
                number=len(before) + 1,
                time=datetime.now(UTC).isoformat(timespec="seconds"),
                site=site.name,
                by=by,
                decision=decision,
                study=plan.study.name,
                plan_hash=plan.hash(),
                package=package_digest(),
                version=version("fednotes"),
                previous=before[-1].hash if before else _NONE_BEFORE,
                hash=_NONE_BEFORE,
                signature="00",
            )
        except ValidationError:
            raise InputError("usage", f"--by {by!r} is no name.", "Give 1 to 100 letters in one line.") from None
        hashed = blank.model_copy(update={"hash": _hash(blank)})
        made = hashed.model_copy(update={"signature": _sign(key, hashed)})
        lines = [one.model_dump_json() + "\n" for one in (*before, made)]
        write_text(site.folder / HEAD_FILE, made.model_dump_json())
        write_text(file, "".join(lines))
    return made


def _hash(one: Approval) -> str:
    return hashlib.sha256(one.model_dump_json(exclude={"hash", "signature"}).encode()).hexdigest()


def _sign(key: PrivateKey, one: Approval) -> str:
    return key.sign(_PURPOSE + bytes.fromhex(one.hash), ECDSA(SHA384())).hex()


def _signed(key: EllipticCurvePublicKey, one: Approval) -> bool:
    try:
        key.verify(bytes.fromhex(one.signature), _PURPOSE + bytes.fromhex(one.hash), ECDSA(SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _public_key(site: Site) -> EllipticCurvePublicKey:
    """Of the site's own key; once that was destroyed (`fednotes site leave`), of its answer to the kit. Raises as
    `load_key`."""
    place, answer = site.coordinator.key, site.folder / KEY_REPLY.format(site.name)
    if place.exists() or not answer.exists():
        return load_key(place).public_key()
    key = load_ssh_public_key(read_answer(answer).public_key.encode())
    assert isinstance(key, EllipticCurvePublicKey)  # the site wrote it
    return key


def _damaged(file: Path, where: str) -> MachineError:
    return MachineError(
        "approvals-damaged",
        f"The approvals {file} are damaged {where}: edited, cut off, or signed with another key.",
        "Put them back from a backup, or move approvals.jsonl and approvals.head elsewhere and approve anew.",
    )

"""The governance annex of a release: who approved what, what the ledgers stood at, what went wrong, and with which
versions. For those at each hospital who answer for the use of its notes."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from common.package import package_digest
from common.results import Summary
from server.export.counts import floored
from server.export.markdown import render
from server.record.place import opened
from server.record.reader import Incident as RecordedIncident
from server.record.reader import read_study
from server.run_folder import RunFolder

GOVERNANCE = "governance"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteApproval(_Part):
    """Who at a site approved the plan, when (ISO 8601), and the SHA-256 (hex) of that entry in the site's own chain of
    approvals, which fixes the package that was installed there, too."""

    site: str
    by: str
    time: str
    digest: str


class LedgerDigest(_Part):
    """The hash of the newest entry of a site's privacy ledger after its last round: it fixes all entries before it."""

    site: str
    round: int
    epsilon: float
    digest: str


class Incident(_Part):
    """Something that went wrong, in a sentence. `round` 0: of the whole study; `time` (ISO 8601) is empty where nobody
    knows it."""

    round: int
    site: str
    text: str
    time: str = ""


class Governance(_Part):
    """What is known of a run. A site that is not among the approvals has a policy that asks for none."""

    approvals: list[SiteApproval]
    ledger: list[LedgerDigest]
    incidents: list[Incident]
    actions: list[Incident]
    versions: dict[str, str]


def read_governance(run: RunFolder, summary: Summary) -> Governance:
    """The one place where the record of a run is read for the annex. Raises as `opened` and `read_study`."""
    record = read_study(*opened(run.path))
    approvals = [
        SiteApproval(site=one.name, by=one.approved_by or "withheld", time=one.approved_at, digest=one.approval)
        for one in summary.sites
        if one.approval
    ]
    return Governance(
        approvals=approvals,
        ledger=_ledger(summary),
        incidents=[*_of_record(record.incidents), *_of_the_check(summary)],
        actions=_of_record(record.actions),
        versions=summary.versions | {"package": package_digest()},
    )


def write_governance(folder: Path, governance: Governance, summary: Summary, files: dict[str, str]) -> None:
    """Write `governance.json` and `governance.md` into a folder. `files`: SHA-256 (hex) of each file of the release."""
    known = {"study": summary.study, "plan_hash": summary.plan_hash, **governance.model_dump(mode="json")}
    text = json.dumps(known | {"files": files}, indent=2, ensure_ascii=False) + "\n"
    (folder / f"{GOVERNANCE}.json").write_text(text, encoding="utf-8")
    page = render(f"{GOVERNANCE}.md.jinja", governance=governance, summary=summary, files=files)
    (folder / f"{GOVERNANCE}.md").write_text(page, encoding="utf-8")


def _ledger(summary: Summary) -> list[LedgerDigest]:
    newest: dict[str, LedgerDigest] = {}
    for one in summary.rounds:
        for did in one.sites:
            if did.privacy and did.privacy.ledger:
                newest[did.site] = LedgerDigest(
                    site=did.site, round=one.number, epsilon=did.privacy.epsilon, digest=did.privacy.ledger
                )
    return [newest[site] for site in sorted(newest)]


def _of_record(found: list[RecordedIncident]) -> list[Incident]:
    return [
        Incident(
            round=one.round,
            site=one.site,
            text=floored(f"{one.sentence} ({one.code})" if one.code else one.sentence),
            time=one.time.isoformat(timespec="seconds"),
        )
        for one in found
    ]


def _of_the_check(summary: Summary) -> list[Incident]:
    last = summary.rounds[-1].number if summary.rounds else 0
    return [
        Incident(round=last, site=one.site, text=f"memorisation check: {one.veto or one.reason}")
        for one in summary.memorisation
        if one.veto or one.reason
    ]

"""The annex for information governance."""

import json
from pathlib import Path

from example_private import private_summary
from example_summary import example_summary

from common.results import Memorisation, Summary
from server.events import Event
from server.export.governance import (
    Governance,
    Incident,
    LedgerDigest,
    SiteApproval,
    read_governance,
    write_governance,
)
from server.record.database import Database
from server.record.recorder import Recorder
from server.run_folder import RunFolder

DIGEST = "ab" * 32


def with_ledgers(summary: Summary) -> Summary:
    def stamped(number: int, did: object) -> object:
        if did.privacy is None:  # type: ignore[attr-defined]
            return did
        digest = f"{number:02d}" + DIGEST[2:]
        return did.model_copy(  # type: ignore[attr-defined]
            update={"privacy": did.privacy.model_copy(update={"ledger": digest})}  # type: ignore[attr-defined]
        )

    rounds = [one.model_copy(update={"sites": [stamped(one.number, s) for s in one.sites]}) for one in summary.rounds]
    return summary.model_copy(update={"rounds": rounds})


def test_it_holds_the_newest_digest_of_each_ledger_every_approval_and_every_incident(
    record: tuple[Database, str], recorder: Recorder, run: Path
) -> None:
    summary = with_ledgers(private_summary())
    approved = {"approved_by": "Dr Bo", "approved_at": "2026-01-02T03:04:05+00:00", "approval": DIGEST}
    sites = [summary.sites[0].model_copy(update=approved), *summary.sites[1:]]
    unasked = [Memorisation(site="North", reason="no reply in time")]
    summary = summary.model_copy(update={"sites": sites, "memorisation": unasked})
    recorder(Event("left-out", 0, "W", "why", "not-online"))
    recorder(Event("left-out", 3, "Harbour Clinic", "no reply in time", "no-reply"))
    recorder(Event("action", 3, text="bo stopped the study"))
    found = read_governance(RunFolder(run), summary)
    assert [one.site for one in found.ledger] == sorted(site.name for site in summary.sites)
    assert {one.round for one in found.ledger} == {8} and all(one.digest.startswith("08") for one in found.ledger)
    texts = [(one.round, one.site, one.text) for one in found.incidents]
    assert texts == [
        (0, "W", "W is not online. (not-online)"),
        (3, "Harbour Clinic", "Harbour Clinic did not answer in time. (no-reply)"),
        (8, "North", "memorisation check: no reply in time"),
    ]
    assert [one.text for one in found.actions] == ["bo stopped the study"] and found.incidents[0].time
    (approval,) = found.approvals
    assert (approval.site, approval.by, approval.digest) == (sites[0].name, "Dr Bo", DIGEST)
    assert len(found.versions["package"]) == 64


def test_it_is_written_as_words_and_as_data(tmp_path: Path) -> None:
    hostile = "<script>|x|</script>\n# a"
    governance = Governance(
        approvals=[SiteApproval(site=hostile, by=hostile, time="2026-01-02", digest="aa")],
        ledger=[LedgerDigest(site=hostile, round=2, epsilon=1.5, digest=DIGEST)],
        incidents=[Incident(round=0, site=hostile, text=hostile), Incident(round=3, site="", text="it stopped")],
        actions=[Incident(round=0, site="", text=hostile, time="2026-01-02")],
        versions={"fednotes": "0.1.0"},
    )
    write_governance(tmp_path, governance, example_summary(), {"model.safetensors": DIGEST})
    known = json.loads((tmp_path / "governance.json").read_text(encoding="utf-8"))
    assert known["approvals"][0]["site"] == hostile and known["files"] == {"model.safetensors": DIGEST}
    page = (tmp_path / "governance.md").read_text(encoding="utf-8")
    assert "<script" not in page and "\n# a" not in page and DIGEST in page and "1.5000" in page
    assert "before the first round" in page and "round 3: it stopped" in page
    rows = [line for line in page.splitlines() if "script" in line and line.startswith("|")]
    assert [line.count("|") for line in rows] == [5, 5]


def test_where_nothing_is_known_it_says_so(tmp_path: Path) -> None:
    nothing = Governance(approvals=[], ledger=[], incidents=[], actions=[], versions={})
    write_governance(tmp_path, nothing, example_summary(), {})
    page = (tmp_path / "governance.md").read_text(encoding="utf-8")
    assert "No site has approved the plan" in page and "No ledger was charged" in page and "None was recorded." in page

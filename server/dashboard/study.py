"""The page of a study, section by section: the report's own sections, made of the record while it grows."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.results import NO_DP
from server.dashboard.downloads import offered
from server.dashboard.ladder import ladder_section
from server.dashboard.library import Entry
from server.dashboard.live import Feed
from server.dashboard.rendering import rendered
from server.record.reader import SILENT, Ended, LiveSummary, StudyRecord, beat, read_study, version
from server.report import privacy_words, words
from server.report.page import federation_context, memorisation_context, sites_context, study_context, training_context
from server.report.privacy_section import privacy_section
from server.report.shell import Charts
from server.report.study_tables import governance_table
from server.study.verdict import is_late, verdict, waiting

_STILL = {
    "finished": "The study has finished: nothing changes any more.",
    "stopped": "The study has stopped: nothing changes until it is resumed.",
}
CONTENTS = [
    ("ladder", "Sites and rounds"),
    ("training", "Did training work?"),
    ("federation", "Does federation help?"),
    ("labels", "Few labels"),
    ("privacy", "Privacy"),
    ("memorisation", "Memorisation"),
    ("contribution", "Contribution"),
    ("time", "Time and bytes"),
    ("governance", "Governance"),
    ("incidents", "Incidents"),
    ("sites", "Sites"),
    ("artefacts", "Artefacts"),
]
_NAMED = 5  # sites that are late: the ladder shows all
OF_ALL = ("memorisation", "sites", "artefacts")  # what the page of one site has not


class StudySource:
    """A study; with `site`, that site of it alone."""

    def __init__(self, entry: Entry, site: str = "") -> None:
        self._entry, self._site = entry, site
        self._known: dict[int, Ended] = {}
        self._settled: tuple[object, dict[str, str]] = (None, {})

    def feed(self) -> Feed:
        number = version(self._entry.database, self._entry.study)
        last, state = beat(self._entry.database, self._entry.study)
        moment = last.timestamp() // 30 if state == "running" else ""  # how long a site is waited for is said anew
        files = [] if self._site else [name for name, _ in offered(self._entry)]
        return Feed(f"{number} {state} {moment} {files}", last.timestamp(), _STILL.get(state, ""), SILENT)

    def sections(self) -> dict[str, str]:
        record = read_study(self._entry.database, self._entry.study, self._known)
        summary = record.summary()
        if self._site:
            summary = _of_site(summary, self._site)
        settled = self._of_what_has_ended(record, summary)
        here: dict[str, Any] = {"key": self._entry.key, "site": self._site}
        governance: dict[str, Any] = {
            "summary": summary,
            "governance": governance_table(summary),
            "actions": [] if self._site else record.actions,
        }
        sections = {
            "verdict": self._verdict(record, here),
            "ladder": ladder_section(record, self._entry.key, self._site),
            **settled,
            "governance": rendered("sections/governance.html", **governance),
            "incidents": rendered("incidents.html", incidents=_incidents(record, self._site)),
        }
        if not self._site:
            files = offered(self._entry)
            sections["artefacts"] = rendered("artefacts.html", **here, files=files, checkpoints=record.checkpoints)
        return {name: sections[name] for name, _ in [("verdict", ""), *CONTENTS] if name in sections}

    def _verdict(self, record: StudyRecord, here: dict[str, Any]) -> str:
        now = datetime.now(UTC)
        late = [one.site for one in waiting(record) if is_late(record, one, now)]
        return rendered(
            "verdict.html",
            **here,
            state=record.state,
            privacy=record.plan.privacy_words,
            no_dp=record.plan.privacy_words == NO_DP,
            line=verdict(record, record.state, now),
            late=words.listed([*late[:_NAMED], f"{len(late) - _NAMED} more"] if len(late) > _NAMED else late),
            message=record.message,
            lead=words.lead(record.summary()) if record.state == "finished" else [],
            contents=[one for one in CONTENTS if not self._site or one[0] not in OF_ALL],
            can_act=self._entry.run is not None,
        )

    def _of_what_has_ended(self, record: StudyRecord, summary: LiveSummary) -> dict[str, str]:
        """The sections that change only when a round has ended: with many sites and rounds they take a while."""
        key = (len(record.rounds), len(record.scores), len(record.sites), record.state, sorted(record.left_out))
        if self._settled[0] == key:
            return self._settled[1]
        context = study_context(summary)
        made = {
            "training": _with_charts("sections/training.html", lambda charts: training_context(summary, charts)),
            "federation": _with_charts("federation.html", lambda charts: federation_context(summary, charts)),
            "privacy": self._privacy(summary),
            "contribution": rendered("sections/contribution.html", **context),
            "time": rendered("sections/time.html", **context),
        }
        if not self._site:
            made["memorisation"] = rendered("sections/memorisation.html", **memorisation_context(summary))
            made["sites"] = rendered("sites.html", **sites_context(summary), summary=summary)
        self._settled = (key, made)
        return made

    def _privacy(self, summary: LiveSummary) -> str:
        charts = Charts("privacy")
        found = privacy_section(charts, summary)
        if found is None:
            return rendered("no_privacy.html", sentences=privacy_words.small_print(summary, False))
        return rendered("sections/privacy.html", charts, privacy=found)


def _with_charts(template: str, context: Callable[[Charts], dict[str, Any]]) -> str:
    charts = Charts(Path(template).stem)
    return rendered(template, charts, **context(charts))


def _incidents(record: StudyRecord, site: str) -> list[Any]:
    found = [one for one in record.incidents if not site or one.site == site]
    return found[::-1]


def _of_site(summary: LiveSummary, site: str) -> LiveSummary:
    """The same study as if it had that site alone."""
    rounds = [
        one.model_copy(
            update={
                "sites": [did for did in one.sites if did.site == site],
                "held_out": {name: value for name, value in one.held_out.items() if name == site},
            }
        )
        for one in summary.rounds
    ]
    return summary.model_copy(
        update={
            "rounds": rounds,
            "sites": [one for one in summary.sites if one.name == site],
            "left_out_sites": {name: why for name, why in summary.left_out_sites.items() if name == site},
            "scores": [one for one in summary.scores if one.site == site],
            "comparisons": [one for one in summary.comparisons if one.site == site],
            "not_scored": [one for one in summary.not_scored if one.site == site],
        }
    )

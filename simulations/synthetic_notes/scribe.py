"""The scribe: writes the notes of one patient, as the patient's hospital writes them."""

import re
from datetime import date
from random import Random

from .hospitals import Hospital
from .note_types import HEADINGS, NOTE_SENTENCES, NOTE_TYPES, SECTIONS
from .patients import Patient
from .phrases import ABBREVIATIONS, MISSPELLINGS, SENTENCES, SYMPTOMS, phrasebook

PHRASES = phrasebook(SYMPTOMS) | phrasebook(SENTENCES) | phrasebook(NOTE_SENTENCES)

# How often a section is taken over from the patient's last note that has it, rather than written anew.
CARRIED_FORWARD = {"past": 0.6, "drugs": 0.5, "allergy": 0.9, "social": 0.6, "situation": 0.2, "plan": 0.1}
# Shares of the notes with a date, a signature and headings; and of the sections written as in another type of note,
# since those who write one type write others too. Without the last two, a heading or a stock phrase tells the type.
DATED = 0.7
SIGNED = 0.5
HEADED = 0.7
BORROWED = 0.4
# How much a hospital prefers its own wordings: 1 is not at all.
LEANING = 1.6

_SLOT = re.compile(r"\{([^{}]+)\}|<([\d.]+)\.\.([\d.]+)>")
_OF_PATIENT = re.compile(r"(?:(also|past|no) )?(name|told|sign|test|scan|care|done|home|usual)")
_IN_FULL = re.compile(rf"\b({'|'.join(sorted(ABBREVIATIONS, key=len, reverse=True))})\b")
_LONGER_WORD = re.compile(r"\b[a-z]{6,}\b")


class Scribe:
    """Writes the notes of one patient; what it wrote before may turn up again, as it does in a real record."""

    def __init__(self, hospital: Hospital, patient: Patient, rng: Random) -> None:
        self._hospital = hospital
        self._patient = patient
        self._rng = rng
        self._written: dict[str, str] = {}
        self._said: set[str] = set()
        self._present = patient.present

    def note(self, category: str, day: date) -> str:
        """The text of one note of this type."""
        self._said.clear()
        kind, layout = NOTE_TYPES[category], self._hospital.layout
        headed = self._rng.random() < HEADED
        parts: list[str] = []
        for section, often, template in kind.sections:
            if often < 1 and self._rng.random() > often * self._hospital.detail:
                continue
            if self._rng.random() < BORROWED:
                template = self._rng.choice(SECTIONS[section])
            heading = layout.heading(len(parts) + 1, self._heading(section)) if headed else ""
            parts.append(heading + self._body(section, template))
        head = [self._say("{" + kind.title + "}")] if self._rng.random() < self._hospital.titled else []
        if self._rng.random() < DATED:
            head.append(day.strftime(self._hospital.date_format))
        foot = [self._say("{signature}")] if self._rng.random() < SIGNED else []
        top = [" ".join(head)] if head else []
        return layout.between.join(top + parts + foot)

    def _heading(self, section: str) -> str:
        *full, short = HEADINGS[section]
        return short if self._hospital.layout.short else full[self._hospital.dialect // 2 % len(full)]

    def _body(self, section: str, template: str) -> str:
        if section not in self._written or self._rng.random() > CARRIED_FORWARD.get(section, 0):
            text = self._say(template)
            if len(items := text.split(" * ")) > 1:
                layout = self._hospital.layout
                text = layout.after_item.join(layout.bullet + item for item in items)
            self._written[section] = self._worn(text)
        return self._written[section]

    def _say(self, template: str) -> str:
        return _SLOT.sub(lambda slot: self._fill(*slot.groups()), template)

    def _fill(self, name: str | None, low: str, high: str) -> str:
        if name is None:
            decimals = len(low.partition(".")[2])
            return f"{self._rng.uniform(float(low), float(high)):.{decimals}f}"
        key = name[0].lower() + name[1:]
        said = self._patient.word(key) or self._say(self._phrase(key))
        return said if name == key else said[0].upper() + said[1:]

    def _phrase(self, key: str) -> str:
        """A phrase of that name, not yet said in this note if there is one."""
        avoided = self._said
        if slot := _OF_PATIENT.fullmatch(key):
            options: tuple[str, ...] = self._patient.problem(slot[1], self._rng).phrases[slot[2]]
            at = self._rng.randrange(len(options))
            if slot[1] == "no":
                avoided = self._said | self._present
        else:
            # Each hospital leans towards wordings of its own.
            options = PHRASES[key]
            at = self._hospital.dialect + int(len(options) * self._rng.random() ** LEANING)
        turned = (options[(at + step) % len(options)] for step in range(len(options)))
        phrase = next((option for option in turned if option not in avoided), options[at % len(options)])
        self._said.add(phrase)
        return phrase

    def _worn(self, text: str) -> str:
        """The text with the hospital's abbreviations and slips of the keyboard."""
        rng, hospital = self._rng, self._hospital
        text = _IN_FULL.sub(lambda m: ABBREVIATIONS[m[0]] if rng.random() < hospital.abbreviates else m[0], text)
        return _LONGER_WORD.sub(lambda m: self._slip(m[0]) if rng.random() < hospital.misspells else m[0], text)

    def _slip(self, word: str) -> str:
        """The word as misspelt by habit, or else with two letters swapped, one lost or one doubled."""
        at = self._rng.randrange(1, len(word) - 1)
        before, letter, after = word[:at], word[at], word[at + 1 :]
        slips = (before + after, before + 2 * letter + after, before + after[0] + letter + after[1:])
        return MISSPELLINGS.get(word) or self._rng.choice(slips)

"""The patients: what each has now, had before, and has not got."""

from dataclasses import dataclass
from random import Random

from .problems import PROBLEMS, Problem

# A patient shows a part of what a problem can show, and the notes call it by a few of its names.
PHRASES_A_PATIENT = 4
PAST_PROBLEMS = 2
# One illness brings others of its kind with it.
SAME_SPECIALTY = 0.3


def weighted(weights: dict[str, float], rng: Random) -> str:
    """One of the keys, as often as its weight says."""
    return rng.choices(list(weights), list(weights.values()))[0]


@dataclass(frozen=True)
class Patient:
    """One stay of one patient. The specialty of `main`, the problem that the stay is for, is the label."""

    id: str
    age: int
    sex: str
    side: str
    main: Problem
    also: Problem
    past: tuple[Problem, ...]

    @classmethod
    def admit(cls, id: str, specialty: str, rng: Random) -> "Patient":
        """Someone of any age and sex, with a problem of this specialty and others of any."""
        sex = rng.choice("fm")
        drawn: list[Problem] = []
        while len(drawn) < 1 + 1 + PAST_PROBLEMS:
            kind = specialty if not drawn or rng.random() < SAME_SPECIALTY else rng.choice(list(PROBLEMS))
            problem = rng.choice(PROBLEMS[kind])
            if problem.found_in(sex) and problem not in drawn:
                drawn.append(problem)
        main, also, *past = (_as_seen(problem, rng) for problem in drawn)
        side = rng.choice(("left", "right"))
        return cls(id, rng.randint(19, 94), sex, side, main, also, tuple(past))

    def problem(self, whose: str, rng: Random) -> Problem:
        """The problem meant by the `also`, `past` or `no` of a template; without any of these, the main one."""
        match whose:
            case "also":
                return self.also
            case "past":
                return rng.choice(self.past)
            case "no":
                ours = {self.main.specialty, self.also.specialty}
                return rng.choice(PROBLEMS[rng.choice([specialty for specialty in PROBLEMS if specialty not in ours])])
            case _:
                return self.main

    @property
    def present(self) -> set[str]:
        """What a note must not deny."""
        return {phrase for problem in (self.main, self.also) for said in problem.phrases.values() for phrase in said}

    def word(self, name: str) -> str | None:
        """What `{age}`, `{side}`, `{person}` and the pronouns stand for."""
        f = self.sex == "f"
        return {
            "age": str(self.age),
            "side": self.side,
            "person": "lady" if f else "man",
            "he": "she" if f else "he",
            "him": "her" if f else "him",
            "his": "her" if f else "his",
        }.get(name)


def _as_seen(problem: Problem, rng: Random) -> Problem:
    seen = {field: rng.sample(said, min(PHRASES_A_PATIENT, len(said))) for field, said in problem.phrases.items()}
    return Problem(problem.specialty, {field: tuple(said) for field, said in seen.items()})

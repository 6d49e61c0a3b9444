"""A summary that looks like a real run, for the tests of what shows one."""

import random
from collections.abc import Sequence
from typing import Literal, get_args

from common.results import (
    Comparison,
    EmbeddingMap,
    EmbeddingPoint,
    Estimate,
    FewShot,
    HeldOut,
    Metric,
    Mode,
    ModelName,
    NotScored,
    Round,
    SiteFacts,
    SiteRound,
    Space,
    Summary,
    TaskScore,
)

SITES = ["Northgate General", "St Brigid's", "Harbour Clinic", "Lakeside University Hospital"]
WORDS: tuple[ModelName, ...] = ("tf-idf", "majority")
CLASSES = ["cardiology", "neurology", "orthopaedics", "oncology", "gastroenterology"]
SKILL: dict[ModelName, float] = {
    "federated": 0.74,
    "base": 0.69,
    "local-only": 0.71,
    "centralised": 0.75,
    "tf-idf": 0.66,
    "majority": 0.09,
}


# How much of a frozen encoder's distance to 1 is left when it is tuned.
LEFT: dict[Mode, float] = {"frozen": 1.0, "fine-tuned": 0.6, "lora": 0.66}
# What each objective adds up on held-out notes: the level of the first site at round 0.
PARTS: dict[str, dict[str, float]] = {
    "mlm": {},
    "declutr": {"contrastive": 2.4, "mlm": 3.2},
    "note-category": {"mlm": 3.2, "category": 1.9},
}


def example_summary(
    sites: list[str] | None = None,
    rounds: int = 8,
    tasks: tuple[str, ...] = ("specialty",),
    seed: int = 7,
    modes: Sequence[Mode] = ("frozen",),
    metric: Metric = "macro-f1",
    objective: str = "mlm",
    spaces: bool = False,
) -> Summary:
    """`spaces`: all sites but the last release figures of their embedding space."""
    draw = random.Random(seed)
    names = SITES if sites is None else sites
    scores = [s for task in tasks for site in names for s in _scores(draw, site, task, modes, metric)]
    releasing = (names[:-1] or names) if spaces else []
    return Summary(
        study="Four hospitals, simulated",
        status="finished",
        plan_hash="9f2c4b7e1a60d35c8be4",
        objective=objective,
        seed=seed,
        engine="inprocess",
        started="2026-05-04T09:12:03Z",
        finished="2026-05-04T09:31:47Z",
        seconds=1184.2,
        versions={"fednotes": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "flwr": "1.41.0"},
        base="all-MiniLM-L6-v2",
        parameters=22_713_216,
        shared_parameters=10_795_008,
        sites=[
            site_facts(name, train=draw.randint(300, 2400), test=110 + i, set_aside=i * 7)
            for i, name in enumerate(names)
        ],
        left_out_sites={"Westbury Infirmary": "41 notes after duplicates were set aside; the plan asks for 100"},
        planned_rounds=rounds,
        rounds=[_round(draw, names, number, objective, releasing) for number in range(rounds + 1)],
        scores=scores,
        comparisons=_comparisons(draw, scores, modes),
        not_scored=[NotScored(site=s, task="readmission", reason="one class in the test notes") for s in names[:1]],
    )


def example_map(sites: list[str] | None = None, points: int = 400, seed: int = 3) -> EmbeddingMap:
    draw = random.Random(seed)
    names = SITES if sites is None else sites
    placed = []
    for i in range(points):
        kind, site = i % len(CLASSES), names[i % len(names)]
        x, y = draw.gauss((kind - 2) * 1.6, 0.8), draw.gauss((kind * kind % 5) * 1.2, 0.8)
        placed.append(EmbeddingPoint(site=site, category=CLASSES[kind], label=f"note {i}", x=x, y=y))
    return EmbeddingMap(points=placed, model="the shared encoder after round 8", explained=[0.23, 0.11])


def site_facts(name: str, train: int, test: int, set_aside: int) -> SiteFacts:
    return SiteFacts(
        name=name,
        train=train,
        dev=90,
        test=test,
        set_aside=set_aside,
        tokens=148 * train,
        whole=train - train // 5 - 3,
        shortened=train // 5,
        too_short=3,
    )


def _round(draw: random.Random, sites: list[str], number: int, objective: str, releasing: list[str]) -> Round:
    held_out = {
        site: HeldOut(
            loss=2.1 + 1.1 * 0.7**number + 0.12 * i + draw.gauss(0, 0.015),
            notes=90,
            tokens=14_200,
            parts=_parts(draw, objective, number, i),
            space=_space(draw, number, i) if site in releasing else None,
        )
        for i, site in enumerate(sites)
    }
    if number == 0:
        return Round(number=0, attempts=1, seconds=8.1, sites=[], held_out=held_out)
    rows = []
    for i, site in enumerate(sites):
        if number % 4 == 3 and i == 2:
            rows.append(SiteRound(site=site, state="left-out", reason="no answer within 300 s", seconds=300.0))
            continue
        rows.append(
            SiteRound(
                site=site,
                state="returned",
                notes=300 + 40 * i,
                steps=60 + 5 * i,
                tokens=61_000 + 900 * i,
                loss=2.2 + 1.0 * 0.72**number + 0.1 * i + draw.gauss(0, 0.03),
                parts=_parts(draw, objective, number, i),
                seconds=draw.uniform(20, 45),
                bytes_down=43_180_032,
                bytes_up=43_180_032,
                update_norm=3.1 * 0.9**number,
            )
        )
    return Round(number=number, attempts=2 if number % 4 == 3 else 1, seconds=52.4, sites=rows, held_out=held_out)


def _parts(draw: random.Random, objective: str, number: int, site: int) -> dict[str, float]:
    return {
        part: level * (0.55 + 0.45 * 0.7**number) + 0.08 * site + draw.gauss(0, 0.02)
        for part, level in PARTS[objective].items()
    }


def _space(draw: random.Random, number: int, site: int) -> Space:
    done = 1 - 0.7**number
    between = 0.44 - 0.28 * done + 0.02 * site + draw.gauss(0, 0.005)
    return Space(
        notes=90,
        within=between + 0.09 + 0.1 * done + draw.gauss(0, 0.005),
        between=between,
        alignment=0.9 + 0.4 * done + 0.03 * site + draw.gauss(0, 0.01),
        uniformity=-1.6 - 1.1 * done + 0.05 * site + draw.gauss(0, 0.02),
        silhouette_label=0.05 + 0.09 * done - 0.01 * site + draw.gauss(0, 0.004),
        # too few categories at the second site
        silhouette_category=None if site == 1 else 0.02 + 0.05 * done + draw.gauss(0, 0.004),
        modularity_label=0.31 + 0.12 * done + draw.gauss(0, 0.01),
        modularity_category=None if site == 1 else 0.2 + 0.05 * done + draw.gauss(0, 0.01),
        effective_rank=28 + 17 * done + 2 * site + draw.gauss(0, 0.6),
        cka_base=1.0 if number == 0 else 0.99 - 0.35 * done + draw.gauss(0, 0.01),
    )


def _estimate(draw: random.Random, value: float, half: float) -> Estimate:
    value = min(0.98, max(0.02, value + draw.gauss(0, half / 3)))
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def _scores(draw: random.Random, site: str, task: str, modes: Sequence[Mode], metric: Metric) -> list[TaskScore]:
    support = {name: draw.randint(14, 40) for name in CLASSES}
    n_test = sum(support.values())
    lift = draw.gauss(0, 0.03)
    levels = {
        model: SKILL[model] + lift + (draw.gauss(0, 0.03) if model == "local-only" else 0)
        for model in get_args(ModelName)
    }
    wanted = [(model, mode) for model in levels for mode in (modes if model not in WORDS else ["frozen"])]
    scores = []
    for model, mode in wanted:
        level = 1 - (1 - levels[model]) * LEFT[mode]
        few_shot = []
        for shots in () if model == "majority" else (1, 2, 4, 8, 16, 32) if mode == "frozen" else (16,):
            value = level - 0.38 * (shots + 1) ** -0.6
            seeds = [value + draw.gauss(0, 0.03) for _ in range(5)]
            few_shot.append(
                FewShot(
                    shots=shots,
                    macro_f1=_estimate(draw, value, 0.07),
                    accuracy=_estimate(draw, value + 0.03, 0.06),
                    per_seed=seeds,
                    short_classes=int(shots > 16),
                )
            )
        scores.append(
            TaskScore(
                site=site,
                task=task,
                model=model,
                mode=mode,
                metric=metric,
                n_train=4 * n_test,
                n_test=n_test,
                support=support,
                macro_f1=_estimate(draw, level, 0.07),
                accuracy=_estimate(draw, level + 0.02, 0.06),
                auroc=_estimate(draw, min(0.95, level + 0.18), 0.03) if model not in WORDS else None,
                few_shot=few_shot,
            )
        )
    return scores


def _comparisons(draw: random.Random, scores: list[TaskScore], modes: Sequence[Mode]) -> list[Comparison]:
    """TF-IDF has no encoder, and is compared with the shared one in every mode; the majority class is not compared."""
    values = {
        (s.site, s.task, s.model, s.mode): s.accuracy.value if s.metric == "accuracy" else s.macro_f1.value
        for s in scores
    }
    compared = []
    for score in scores:
        for mode in (
            () if score.model in ("federated", "majority") else modes if score.model in WORDS else (score.mode,)
        ):
            site, task, model = score.site, score.task, score.model
            value = values[site, task, "federated", mode] - values[site, task, model, score.mode]
            half = draw.uniform(0.03, 0.06)
            low, high = value - half, value + half
            verdict: Literal["better", "worse", "no clear difference"] = "no clear difference"
            if low > 0 or high < 0:
                verdict = "better" if low > 0 else "worse"
            compared.append(
                Comparison(
                    site=site,
                    task=task,
                    against=model,
                    mode=mode,
                    metric=score.metric,
                    difference=Estimate(value=value, low=low, high=high),
                    n_test=score.n_test,
                    verdict=verdict,
                )
            )
    return compared

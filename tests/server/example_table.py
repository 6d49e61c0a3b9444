"""A table that looks like a real one, for tests: 3 objectives x 3 settings x 2 seeds, one cell missing."""

import random
from collections.abc import Sequence

from example_summary import CLASSES, site_facts

from common.results import POOLED, TOGETHER, Estimate, FewShot, Mode, ModelName, NotScored, Space, TaskScore, Verdict
from common.table import Arm, Cell, Consumed, Difference, Setting, SiteSpace, Table

SITES = ["Northgate General", "St Brigid's", "Harbour Clinic"]
ARMS = [
    Arm(name="mlm", objective="mlm"),
    Arm(name="declutr", objective="declutr", start="mlm"),
    Arm(name="note-category", objective="note-category", start="mlm"),
]
SETTINGS: tuple[Setting, ...] = ("local-only", "federated", "centralised")
SHOTS = (16, 32, 64, 128)
TUNED_SHOTS = (16,)
LIFT = {"tf-idf": -0.05, "majority": -0.62, "base": 0.0, "mlm": 0.03, "declutr": 0.08, "note-category": 0.025}
SETTING_LIFT: dict[Setting, float] = {"as it is": 0.0, "local-only": -0.03, "federated": 0.01, "centralised": 0.02}
MODELS: dict[str, ModelName] = {"tf-idf": "tf-idf", "majority": "majority", "base": "base"}


def example_table(
    arms: Sequence[Arm] = ARMS,
    sites: Sequence[str] = SITES,
    seeds: Sequence[int] = (1, 2),
    tasks: Sequence[str] = ("specialty",),
    shots: Sequence[int] = SHOTS,
) -> Table:
    """The last cell is missing; the last site holds too few labels to be scored."""
    scored = list(sites[:-1] if len(sites) > 1 else sites)
    untrained = [_cell(Arm(name=name, objective=""), "as it is", seeds[0], scored, tasks, shots) for name in MODELS]
    trained = [
        _cell(arm, setting, seed, scored, tasks, shots) for arm in arms for setting in SETTINGS for seed in seeds
    ]
    cells = [*untrained, *trained[:-1]]
    return Table(
        study="Three objectives at three hospitals",
        status="finished",
        plan_hash="52b1c7d90e6fa38841c2",
        started="2026-05-04T09:12:03Z",
        finished="2026-05-05T02:31:47Z",
        seconds=62_384.0,
        versions={"fednotes": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        base="all-MiniLM-L6-v2",
        parameters=22_713_216,
        rounds=8,
        token_budget=250_000,
        sites=[
            site_facts(name, train=900 - 200 * i, test=180 - 40 * i, set_aside=7 * i) for i, name in enumerate(sites)
        ],
        left_out_sites={"Westbury Infirmary": "41 notes after duplicates were set aside; the plan asks for 100"},
        arms=list(arms),
        seeds=list(seeds),
        planned=len(cells) + 1,
        cells=cells,
        differences=[d for task in tasks for d in _differences(cells, arms, task, shots)],
        not_scored=[
            NotScored(site=site, task=task, reason="one class in the test notes")
            for task in tasks
            for site in sites
            if site not in scored
        ],
    )


def _cell(
    arm: Arm, setting: Setting, seed: int, sites: Sequence[str], tasks: Sequence[str], shots: Sequence[int]
) -> Cell:
    draw = random.Random(f"{arm.name} {setting} {seed}")
    trained = setting != "as it is"
    modes: list[Mode] = ["frozen"] if arm.name in ("tf-idf", "majority") else ["frozen", "fine-tuned", "lora"]
    places = [POOLED, *sites]
    return Cell(
        arm=arm.name,
        setting=setting,
        seed=seed,
        consumed=Consumed(
            steps=480 + draw.randint(0, 9),
            tokens=5_990_000 + draw.randint(0, 20_000),
            whole=1260 if arm.name != "declutr" else 640,
            shortened=700 if arm.name != "declutr" else 1290,
            too_short=0 if arm.name != "declutr" else 30,
            seconds=2400 + draw.uniform(0, 300),
        )
        if trained
        else Consumed(),
        scores=[
            _score(draw, arm.name, setting, site, task, mode, () if arm.name == "majority" else shots)
            for site in [*places, TOGETHER]
            for task in tasks
            for mode in modes
        ],
        space=[SiteSpace(site=site, space=_space(draw, arm.name, setting)) for site in places]
        if arm.name not in ("tf-idf", "majority")
        else [],
    )


def _score(
    draw: random.Random, arm: str, setting: Setting, site: str, task: str, mode: Mode, shots: Sequence[int]
) -> TaskScore:
    support = {name: (30 if site == POOLED else 10) + i for i, name in enumerate(CLASSES)}
    n_test = sum(support.values())
    frozen = 0.70 + LIFT.get(arm, 0.03) + SETTING_LIFT[setting]
    level = frozen if mode == "frozen" else 0.82 + 0.2 * (frozen - 0.70) - (0.01 if mode == "lora" else 0.0)
    few_shot = []
    for n in shots if mode == "frozen" else [n for n in TUNED_SHOTS if n in shots]:
        per_seed = [min(0.99, max(0.02, level - 0.9 / (n + 2) ** 0.6 + draw.gauss(0, 0.015))) for _ in range(5)]
        few_shot.append(
            FewShot(shots=n, macro_f1=_estimate(sum(per_seed) / 5, 0.02), per_seed=per_seed, short_classes=int(n > 64))
        )
    return TaskScore(
        site=site,
        task=task,
        model=MODELS.get(arm) or ("local-only" if setting == "local-only" else "federated"),
        mode=mode,
        n_train=4 * n_test,
        n_test=n_test,
        support=support,
        macro_f1=_estimate(min(0.98, max(0.02, level + draw.gauss(0, 0.004))), 0.05),
        accuracy=_estimate(min(0.98, level + 0.02), 0.05),
        auroc=None if arm in ("tf-idf", "majority") else _estimate(min(0.95, level + 0.15), 0.03),
        few_shot=few_shot,
    )


def _space(draw: random.Random, arm: str, setting: Setting) -> Space:
    contrastive, category = arm == "declutr", arm == "note-category"
    between = (0.12 if contrastive else 0.41) + draw.gauss(0, 0.01)
    return Space(
        notes=256,
        within=between + (0.22 if contrastive else 0.09) + draw.gauss(0, 0.01),
        between=between,
        alignment=0.9 + 0.5 * contrastive + draw.gauss(0, 0.03),
        uniformity=(-2.9 if contrastive else -1.7) + draw.gauss(0, 0.05),
        silhouette_label=0.11 + 0.06 * contrastive + draw.gauss(0, 0.01),
        silhouette_category=0.02 + 0.13 * category + draw.gauss(0, 0.01),
        modularity_label=0.42 + 0.1 * contrastive + draw.gauss(0, 0.01),
        modularity_category=0.2 + 0.2 * category + draw.gauss(0, 0.01),
        effective_rank=61 + 40 * contrastive + draw.gauss(0, 2),
        cka_base=1.0 if arm == "base" else 0.78 + draw.gauss(0, 0.02),
        cka_local=None if setting in ("local-only", "as it is") else 0.88 + draw.gauss(0, 0.02),
    )


def _differences(cells: list[Cell], arms: Sequence[Arm], task: str, shots: Sequence[int]) -> list[Difference]:
    others: list[tuple[str | None, Setting]] = [("base", "as it is"), ("tf-idf", "as it is")]
    others += [(None, "local-only"), (None, "centralised")]
    modes: list[tuple[Mode, Sequence[int]]] = [("frozen", shots), ("fine-tuned", ()), ("lora", ())]
    found = []
    for arm in arms:
        for other, setting in others:
            for mode, few in modes if other != "tf-idf" else modes[:1]:
                for n in (None, *few):
                    mine = _mean(cells, arm.name, "federated", task, mode, n)
                    theirs = _mean(cells, other or arm.name, setting, task, mode, n)
                    if mine is None or theirs is None:
                        continue
                    low, high = mine - theirs - 0.02, mine - theirs + 0.02
                    verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
                    found.append(
                        Difference(
                            site=POOLED,
                            task=task,
                            mode=mode,
                            shots=n,
                            arm=arm.name,
                            setting="federated",
                            against_arm=other or arm.name,
                            against_setting=setting,
                            difference=Estimate(value=mine - theirs, low=low, high=high),
                            n_test=160,
                            seeds=len({cell.seed for cell in cells}),
                            verdict=verdict,
                        )
                    )
    return found


def _mean(cells: list[Cell], arm: str, setting: Setting, task: str, mode: Mode, shots: int | None) -> float | None:
    scores = [
        score
        for cell in cells
        for score in cell.scores
        if (cell.arm, cell.setting, score.site, score.task, score.mode) == (arm, setting, POOLED, task, mode)
    ]
    values = [
        score.macro_f1.value if shots is None else next(f.macro_f1.value for f in score.few_shot if f.shots == shots)
        for score in scores
    ]
    return sum(values) / len(values) if values else None


def _estimate(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half))

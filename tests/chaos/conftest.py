"""Plans of the studies that have to survive."""

from collections.abc import Callable
from typing import Any

import pytest
from surviving_federation import SITES

from common.plan import StudyPlan


@pytest.fixture(scope="session")
def make_study_plan(bases: dict[str, str]) -> Callable[..., StudyPlan]:
    """A study whose rounds take some seconds: `make_study_plan("name", rounds=5)`."""

    def make(name: str, steps: int = 100, rounds: int = 4, min_sites: int = 3, **more: dict[str, Any]) -> StudyPlan:
        sections: dict[str, dict[str, Any]] = {
            "study": {"name": name, "seed": 3},
            "encoder": {"base": bases["bert"], "max_length": 32},
            "training": {"steps_per_round": steps, "batch_size": 4, "learning_rate": 1e-3, "precision": "float32"},
            "federation": {"rounds": rounds, "min_sites": min_sites, "sites": list(SITES), "site_wait": 300},
            "evaluation": {"held_out_notes": 8},
        }
        for section, settings in more.items():
            sections[section] = sections.get(section, {}) | settings
        return StudyPlan.model_validate(sections)

    return make

"""A study through nginx in place of the built-in gateway, as docs/coordinator.md has it for production.

Run by `make servers`; it needs nginx (Debian: apt-get install nginx)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from behind_nginx import nginx
from conftest import approve, same_study, simulated_study, with_sites
from real_federation import RealFederation

from client.notes.source import NotesSource
from common.plan import StudyPlan
from common.supervisor import PROCESSES


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[RealFederation]:
    """Three hospitals and a coordinator that has no gateway of its own: `listen = ""`."""
    root = tmp_path_factory.mktemp("federation")
    made = RealFederation(root, environment)
    try:
        port = made.start(gateway=False)
        with nginx(made.server, root / "nginx", port):
            with_sites(made)
            yield made
            for site in made.sites.values():
                site.stop()
    finally:
        made.end()


def test_a_study_through_nginx_is_the_simulated_one_bit_for_bit(
    federation: RealFederation, study_plan: Callable[..., StudyPlan], hospital_notes: NotesSource, tmp_path: Path
) -> None:
    assert "gateway" not in (federation.server.state / PROCESSES).read_text()
    plan = study_plan("nginx")
    approve(federation, plan)
    done = federation.run(plan)
    same_study(done, simulated_study(plan, hospital_notes, tmp_path / "run", tmp_path / "cache"))
    calls = {one.path for one in federation.proxy.exchanges()}
    assert {"/v1/fleet/push-object", "/v1/fleet/pull-object"} <= calls, calls

"""Hospitals that are not what they should be: each is refused by its code, and the study goes on with the others.

Run by `make servers`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FIRST, approve, settled, write_notes
from real_federation import RealFederation, RealSite
from safetensors.numpy import load_file, save_file

import common
from common.package import PARTS
from common.plan import StudyPlan


def another_package(folder: Path) -> Path:
    """The installed package, with a comment more."""
    root = Path(common.__file__).parents[1]
    for part in PARTS:
        place = root / part
        if place.is_dir():
            shutil.copytree(place, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, folder / part)
    with (folder / "common" / "wire.py").open("a") as file:
        file.write("# edited\n")
    return folder


@pytest.fixture
def others(
    federation: RealFederation, make_base: Callable[..., Path], tmp_path: Path
) -> dict[str, tuple[RealSite, str]]:
    """Name -> a site, and why it is left out."""
    found = {}
    notes = next(iter(write_notes(tmp_path).values()))
    for name in ("eastern", "northern", "southern"):
        found[name] = federation.add(name, tmp_path / "sites" / name, *notes)
        settled(found[name])
    # A plan's base may be a folder beside whoever reads it: here one differs, in one weight.
    make_base(federation.root / "own-base", "bert")
    for site in (*found.values(), federation.sites[FIRST]):
        shutil.copytree(federation.root / "own-base", site.folder / "own-base")
    weights = found["southern"].folder / "own-base" / "model.safetensors"
    tensors = load_file(weights)
    next(value for name, value in tensors.items() if name.endswith("query.weight"))[0, 0] += 1e-6
    save_file(tensors, weights, metadata={"format": "pt"})
    return {
        "eastern": (found["eastern"], "it calls itself western, and is registered under another name"),
        "northern": (found["northern"], "the site reports package-differs"),
        "southern": (found["southern"], "the site reports base-differs"),
    }


def test_a_site_of_another_name_package_or_base_is_left_out(
    federation: RealFederation,
    others: dict[str, tuple[RealSite, str]],
    study_plan: Callable[..., StudyPlan],
    tmp_path: Path,
) -> None:
    plan = study_plan("refused", encoder={"base": "own-base"}, federation={"sites": [FIRST, *others], "min_sites": 1})
    approve(federation, plan, FIRST, "northern", "southern")
    others["eastern"][0].edit(r'^name = "eastern"$', 'name = "western"')
    others["eastern"][0].edit(r"^require_approval = true$", "require_approval = false")
    for name, (site, _) in others.items():
        site.start(**({"PYTHONPATH": str(another_package(tmp_path / "edited"))} if name == "northern" else {}))
    for site, _ in others.values():
        site.online()
    done = federation.run(plan)
    assert done.summary.status == "finished"
    assert [one.name for one in done.state.sites] == [FIRST]
    assert done.state.left_out_sites == {name: reason for name, (_, reason) in others.items()}
    for name, (_, reason) in others.items():
        assert f"{name}: {reason}" in federation.command("status", done.path)
    assert "package" in (others["northern"][0].folder / "logs" / "node.log").read_text()

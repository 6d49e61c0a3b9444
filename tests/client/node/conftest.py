"""A coordinator for all tests of the node, a site whose node they share, and sites with nodes of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fleet import Link, NodeProcess, coordinator

from client.notes.source import NotesSource
from client.site import Policy, SiteConfig
from simulations.partition import write_site

SPLIT_KEY = b"the tests' split key"


@pytest.fixture(scope="session")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    made = Link(tmp_path_factory.mktemp("link"))
    yield made
    made.end()


@pytest.fixture
def node_site(
    link: Link, tmp_path: Path, make_site: Callable[..., Path], hospitals: dict[str, np.ndarray]
) -> Callable[..., Path]:
    """The folder of a site that the coordinator knows."""

    def make(number: int = 0, **settings: Any) -> Path:
        name, rows = list(hospitals.items())[number]
        section = settings.pop("section", None) or coordinator(link, tmp_path / f"key-{name}", **settings)
        return make_site(name, rows, coordinator=section)

    return make


@pytest.fixture(scope="session")
def node(
    link: Link,
    tmp_path_factory: pytest.TempPathFactory,
    hospitals: dict[str, np.ndarray],
    source: NotesSource,
    prepared_cache: Path,
) -> Iterator[NodeProcess]:
    """A node that tests share, for its worker takes seconds to start. What a test kills, it starts again."""
    name, rows = next(iter(hospitals.items()))
    folder = tmp_path_factory.mktemp("shared")
    config = SiteConfig(
        name=name,
        split_key=SPLIT_KEY.hex(),
        cache=prepared_cache,
        notes=source,
        policy=Policy(require_approval=False),
        coordinator=coordinator(link, folder / "key"),
    )
    made = NodeProcess(write_site(folder / name, config, rows))
    made.online()
    yield made
    made.end()


@pytest.fixture
def start_node() -> Iterator[Callable[[Path], NodeProcess]]:
    started: list[NodeProcess] = []

    def start(folder: Path) -> NodeProcess:
        started.append(NodeProcess(folder))
        return started[-1]

    yield start
    for node in started:
        node.end()

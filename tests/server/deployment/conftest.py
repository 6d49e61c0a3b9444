"""A coordinator that really runs, on free ports, for all tests of this folder."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from deployed import FEDNOTES, Connect, FlowerSite, Running, free_port
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from name_spy import NameSpy

from common.supervisor import stop
from server.deployment.processes import healthy
from server.deployment.setup import initialise


@pytest.fixture(scope="session")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("coordinator")
    names = NameSpy(folder / "spy")
    port = free_port()
    server = initialise(folder / "server", "test", f"localhost:{port}", f"127.0.0.1:{port}", free_port(), None)
    environment = os.environ | names.environment
    with (folder / "start.log").open("wb") as log:
        words = [str(FEDNOTES), "server", "start", str(server.folder)]
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        assert healthy(server, seconds=60), (folder / "start.log").read_text()
        yield Running(server, names, process)
    finally:
        stop(server.state, 30)
        process.wait(30)


@pytest.fixture
def connect(coordinator: Running) -> Iterator[Connect]:
    """Connect a node with a key, without one (`signed=False`), or to elsewhere."""
    with contextlib.ExitStack() as stack:

        def make(
            key: ec.EllipticCurvePrivateKey, signed: bool = True, address: str = "", ca: bytes | None = None
        ) -> FlowerSite:
            interceptors = [RuntimeVersionHttpInterceptor(component_name="SuperNode")]
            if signed:
                interceptors.append(NodeAuthHttpInterceptor(key, key.public_key()))
            client = FleetHttpClient.from_server_address(
                address or coordinator.address, False, ca or coordinator.server.ca.read_bytes(), interceptors
            )
            return FlowerSite(stack.enter_context(client), key)

        yield make

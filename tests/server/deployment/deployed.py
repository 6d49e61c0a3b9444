"""What the tests of a coordinator share: free ports, sites that speak as Flower's own do, the command."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from name_spy import NameSpy

from common.kit import answer, read_kit
from common.supervisor import QUIET
from server.deployment.config import Server
from server.deployment.control import synchronise
from server.deployment.registry import accept, invite

FEDNOTES = Path(sys.executable).with_name("fednotes")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@dataclass
class Running:
    """A coordinator that runs. `names`: those that its processes look up."""

    server: Server
    names: NameSpy
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        return self.server.config().address


@dataclass
class FlowerSite:
    """A node as Flower's own is, without apps: it activates itself and asks for messages."""

    client: FleetHttpClient
    key: ec.EllipticCurvePrivateKey

    def activate(self) -> int:
        public = public_key_to_bytes(self.key.public_key())
        request = ActivateNodeRequest(public_key=public, heartbeat_interval=30)
        return int(self.client.ActivateNode(request).node_id)

    def pull(self, node: int) -> int:
        """Ask for messages; how many there are."""
        return len(self.client.PullMessages(PullMessagesRequest(node=Node(node_id=node))).messages_list)


Connect = Callable[..., FlowerSite]


def registered(server: Server, name: str) -> ec.EllipticCurvePrivateKey:
    """Invite a site, answer its kit, register its key, and tell the SuperLink."""
    key = ec.generate_private_key(ec.SECP384R1())
    invite(server, name)
    accept(server, name, answer(read_kit(server.kits / f"{name}.zip"), key))
    synchronise(server)
    return key


def fednotes(*words: object) -> "subprocess.CompletedProcess[str]":
    """The command, in a process of its own."""
    command = [str(FEDNOTES), *map(str, words)]
    return subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, timeout=60, check=False)

"""What the coordinator asks of the SuperLink: sites, runs. The one file with internals of Flower's Control API.

The API has no login: whoever reaches the port is in charge. It listens on loopback, and the gateway never passes it on.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from common.errors import MachineError, StudyError
from server.deployment.config import LOOPBACK, Server
from server.deployment.registry import load_registry, locked

RUN_FOLDER = "run-folder"  # the key of Flower's run config that server.app reads


@dataclass(frozen=True)
class Node:
    """A registered site, as the SuperLink knows it. `key`: PEM; `since`: when it came online or went, or None where it
    never was."""

    name: str
    node: int
    key: bytes
    online: bool
    since: datetime | None


@dataclass(frozen=True)
class RunStatus:
    """`status`: pending, starting, running, completed, failed or stopped. Bytes are those that sites sent and got."""

    status: str
    details: str
    bytes_up: int
    bytes_down: int

    @property
    def finished(self) -> bool:
        return self.status in ("completed", "failed", "stopped")


class Control:
    """A connection to the SuperLink of a coordinator's folder. Close it, or use it in a `with`.

    Every method raises MachineError `superlink-unreachable` where none answers, and `superlink-refuses` where it does
    not do what is asked.
    """

    def __init__(self, server: Server) -> None:
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        self._address = f"{LOOPBACK}:{server.config().flower_port}"
        with _without_proxies():
            self._client: ControlHttpClient = ControlHttpClient.from_server_address(
                self._address,
                insecure=False,
                root_certificates=server.inside.read_bytes(),
                interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
            )

    def __enter__(self) -> "Control":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def register(self, key: bytes, name: str) -> int:
        """Register a site's key (PEM); returns its node's number."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        answer = self._ask(self._client.RegisterNode, RegisterNodeRequest(public_key=key, name=name))
        return int(answer.node_id)

    def unregister(self, node: int) -> None:
        """Throw a node out, for ever: Flower takes its key never again."""
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        self._ask(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node))

    def nodes(self) -> list[Node]:
        """All that are registered."""
        from flwr.proto.control_pb2 import ListNodesRequest

        found = []
        for one in self._ask(self._client.ListNodes, ListNodesRequest()).nodes_info:
            if one.status == "unregistered":
                continue
            online = one.status == "online"
            ended = [one.last_deactivated_at] if one.last_deactivated_at else []
            times = [datetime.fromisoformat(text) for text in ended if not online]
            if online and one.last_activated_at:
                times = [datetime.fromisoformat(one.last_activated_at)]
            elif one.HasField("online_until"):  # one that was killed never said goodbye
                times.append(datetime.fromtimestamp(one.online_until, UTC))
            found.append(Node(one.name, one.node_id, one.public_key, online, max(times, default=None)))
        return found

    def start_run(self, run_folder: Path) -> int:
        """Start a study by the folder that holds its plan; returns Flower's number of the run."""
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        content = bundle()
        request = StartRunRequest(
            fab=fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {})),
            override_config=user_config_to_proto({RUN_FOLDER: str(run_folder.absolute())}),
        )
        answer = self._ask(self._client.StartRun, request)
        if not answer.HasField("run_id"):
            raise MachineError("superlink-refuses", "The SuperLink did not start the run.", _SEE_LOG)
        return int(answer.run_id)

    def run_status(self, run: int) -> RunStatus:
        """Raises StudyError `flower-run-unknown`, too."""
        from flwr.proto.control_pb2 import ListRunsRequest

        runs = self._ask(self._client.ListRuns, ListRunsRequest(run_id=run), unknown=run).run_dict
        if run not in runs:
            raise _unknown(run)
        found = runs[run]
        status = found.status.sub_status if found.status.status == "finished" else found.status.status
        return RunStatus(status, found.status.details, int(found.bytes_recv), int(found.bytes_sent))

    def stop_run(self, run: int) -> bool:
        """Stop a run; False where it had ended before. Raises StudyError `flower-run-unknown`, too."""
        from flwr.proto.control_pb2 import StopRunRequest

        if self.run_status(run).finished:
            return False
        return bool(self._ask(self._client.StopRun, StopRunRequest(run_id=run), unknown=run).success)

    def _ask(self, method: Callable[[Any], Any], request: object, unknown: int | None = None) -> Any:
        """The answer; what can go wrong on the way is turned into errors of ours."""
        import httpx
        from flwr.supercore.error import ApiErrorCode, FlowerError

        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            said = FlowerError.from_json(error.response.text)
            if unknown is not None and said and said.code == ApiErrorCode.RUN_ID_NOT_FOUND:
                raise _unknown(unknown) from None
            text = said.message if said else f"HTTP status {error.response.status_code}"
            raise MachineError("superlink-refuses", f"The SuperLink refuses: {text}", _SEE_LOG) from None
        except (httpx.TransportError, ValueError) as error:
            message = f"No SuperLink of this coordinator answers on {self._address}: {error}."
            raise MachineError("superlink-unreachable", message, "Start it: `fednotes server start`.") from None


_SEE_LOG = "See logs/superlink.log in the coordinator's folder."


def _unknown(run: int) -> StudyError:
    return StudyError("flower-run-unknown", f"The SuperLink knows no run {run}.", "Start the study again.")


@contextlib.contextmanager
def _without_proxies() -> Iterator[None]:
    """Flower's client obeys HTTPS_PROXY; a hospital's proxy cannot reach our loopback."""
    before = os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = f"{before},{LOOPBACK}" if before else LOOPBACK
    try:
        yield
    finally:
        if before is None:
            del os.environ["NO_PROXY"]
        else:
            os.environ["NO_PROXY"] = before


def bundle() -> bytes:
    """What Flower sends to sites in place of code: names of the two apps, which each side has installed."""
    from importlib.metadata import version

    from flwr.cli.build import build_fab_from_files

    project = {
        "project": {"name": "fednotes", "version": version("fednotes"), "license": "Apache-2.0"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fednotes",
                    "components": {"serverapp": "server.app:app", "clientapp": "client.app:app"},
                    "config": {RUN_FOLDER: ""},
                }
            }
        },
    }
    return build_fab_from_files({"pyproject.toml": tomli_w.dumps(project).encode()})[0]


def pem(public_key: str) -> bytes:
    """An OpenSSH public key in the form in which the SuperLink keeps it."""
    from cryptography.hazmat.primitives import serialization
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    return public_key_to_bytes(serialization.load_ssh_public_key(public_key.encode()))  # type: ignore[arg-type]


def synchronise(server: Server) -> tuple[list[str], list[str]]:
    """Bring the SuperLink's list in line with the registry: names that were registered, and that were thrown out."""
    with locked(server), Control(server) as control:
        wanted = {pem(one.public_key): name for name, one in load_registry(server).sites.items() if one.public_key}
        known = {node.key: node for node in control.nodes()}
        added = [name for key, name in wanted.items() if key not in known]
        gone = [node for key, node in known.items() if key not in wanted]
        for key, name in wanted.items():
            if key not in known:
                control.register(key, name)
        for node in gone:
            control.unregister(node.node)
    return added, [node.name for node in gone]

"""Two ways to run the same Flower apps on one machine.

`inprocess`: sites take turns in this process; no Ray, no serialisation to disk, one model in memory. The default.
`flower`: Flower's own simulation engine (Ray), sites in parallel processes.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.app import SITE_FOLDER
from common.errors import MachineError
from common.memorisation import ACTION
from server.app import RUN_FOLDER

_START_SECONDS = 60.0
_SITE_FAILED = 2  # Flower's code for a ClientApp that raised


class InProcessGrid(Grid):
    """Flower's grid over sites in this process: a message is handed over as an object, and answered at once."""

    def __init__(self, sites: list[Path], client_app: Callable[[Message, Context], Message]) -> None:
        self._client_app = client_app
        self._contexts = {
            node: Context(0, node, {SITE_FOLDER: str(folder)}, RecordDict(), {}) for node, folder in enumerate(sites, 2)
        }
        self._waiting: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 0, 1, 0  # Message() asks for them

    def get_node_ids(self) -> list[int]:
        return list(self._contexts)

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node) for node in self._contexts]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in messages:
            number = str(next(self._numbers))
            message.metadata.__dict__["_message_id"] = number  # as Flower's grids do
            self._waiting[number] = message
            numbers.append(number)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The answer of one site: so each is shown as it comes."""
        number = next(number for number in message_ids if number in self._waiting)
        return [self._answer(self._waiting.pop(number))]

    def _answer(self, message: Message) -> Message:
        try:
            return self._client_app(message, self._contexts[message.metadata.dst_node_id])
        except Exception:
            return Message(Error(_SITE_FAILED), reply_to=message)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError("one grid serves one run")

    @property
    def run(self) -> Run:
        raise NotImplementedError("there is no SuperLink, so there is no run of its kind")

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError("deprecated in Flower: use Message()")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        raise NotImplementedError("use push_messages and pull_messages")


def run_inprocess(server_app: ServerApp, client_app: ClientApp, run_folder: Path, sites: list[Path]) -> None:
    """Run a study with sites taking turns. Raises what the ServerApp raises."""
    context = Context(0, 1, {}, RecordDict(), {RUN_FOLDER: str(run_folder)})
    server_app(InProcessGrid(sites, client_app), context)


def run_flower(server_app: ServerApp, client_app: ClientApp, run_folder: Path, sites: list[Path]) -> None:
    """Run a study on Flower's simulation engine. Raises what the ServerApp raises, and MachineError without Ray."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise MachineError(
            "ray-missing",
            "The flower engine needs Ray.",
            'Install it: pip install "fednotes[flower]", or use inprocess.',
        ) from None
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from flwr.simulation import run_simulation

    folders = [str(folder) for folder in sites]

    def at_site(message: Message, context: Context) -> Message:
        # Ray's nodes know only their number.
        context.node_config[SITE_FOLDER] = folders[int(context.node_config["partition-id"])]
        return client_app(message, context)

    wrapped_server, wrapped_client = ServerApp(), ClientApp()

    @wrapped_server.main()
    def main(grid: Grid, context: Context) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while len(list(grid.get_node_ids())) < len(sites) and time.monotonic() < deadline:
            time.sleep(0.1)  # the engine registers its nodes while the ServerApp already runs
        context.run_config[RUN_FOLDER] = str(run_folder)
        server_app(grid, context)

    for register in (wrapped_client.query, wrapped_client.train, wrapped_client.evaluate):
        register()(at_site)
    wrapped_client.query(ACTION)(at_site)
    cores = os.cpu_count() or 1
    run_simulation(
        wrapped_server,
        wrapped_client,
        num_supernodes=len(sites),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": cores, "include_dashboard": False, "log_to_driver": False, "logging_level": 40},
        },
    )


ENGINES = {"inprocess": run_inprocess, "flower": run_flower}

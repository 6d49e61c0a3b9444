"""A ServerApp that does what a test asks: it hands the test its grid, over a socket that the bundle names."""

from multiprocessing.connection import Client

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    with Client(str(context.run_config["socket"])) as pipe:
        pipe.send((TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id))
        while (asked := pipe.recv()) is not None:
            name, arguments = asked
            pipe.send(list(getattr(grid, name)(*arguments)))

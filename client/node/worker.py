"""The resident worker: one process that trains, kept between messages so that model and notes stay warm.

It runs `client.app.app` of the installed package and nothing else. The node can kill it at any moment: when it takes
too long, when its run was stopped, when the node ends. Whatever ends the node ends it.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import TYPE_CHECKING

from client.node.failures import RunEndedError
from client.node.parcel import Parcel, pack, receive_parcel, send_parcel, unpack
from common import messages
from common.errors import FednotesError

if TYPE_CHECKING:
    from flwr.app import Message

log = logging.getLogger("fednotes.node")
IDLE = 30 * 60.0  # seconds after which an idle worker is let go
_CHECK = 5.0  # seconds between two questions whether the run goes on
_END = 5.0  # seconds in which a killed worker is gone
_TELL = 0.5  # seconds between two reports of progress

OnAbout = Callable[[str, int | None], None]  # study, round
OnStep = Callable[[int, int], None]  # steps done, steps of the round


class ResidentWorker:
    """The node's handle on the process; it is started when it is needed."""

    def __init__(self, site: Path, threads: int | None) -> None:
        self._site, self._threads = site, threads
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Pipe | None = None
        self._used = 0.0

    def answer(
        self,
        parcel: Parcel,
        node: int,
        seconds: float,
        running: Callable[[], bool],
        on_about: OnAbout,
        on_step: OnStep,
    ) -> Parcel:
        """The reply to a message, whose objects are gone after that.

        Args:
            node: the site's number, for Flower's context.
            seconds: the longest that it may take.
            running: asked every few seconds whether the run goes on.

        Raises:
            FednotesError: `took-too-long`, `worker-died`. RunEndedError: nobody waits any more. The worker is gone.
        """
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.kill()

        watchdog = threading.Timer(seconds, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            pipe = self._start()
            pipe.send(node)
            send_parcel(pipe, parcel)
            parcel.objects.clear()  # the worker has them; the node need not hold a model while it trains
            asked = time.monotonic()
            while True:
                if pipe.poll(1.0):
                    kind, *said = pipe.recv()
                    if kind == "reply":
                        return receive_parcel(pipe)
                    (on_about if kind == "about" else on_step)(*said)
                if time.monotonic() - asked > _CHECK:
                    if not running():
                        raise RunEndedError
                    asked = time.monotonic()
        except (EOFError, OSError):
            if late.is_set():
                raise FednotesError(
                    "took-too-long",
                    f"The message took longer than {seconds / 3600:.3g} h, and was given up.",
                    "Plan shorter rounds, or raise coordinator.max_hours_per_message in site.toml.",
                ) from None
            raise FednotesError(
                "worker-died",
                f"The process that trains ended in its work ({self._how_it_ended()}).",
                "By SIGKILL, where the machine has too little memory: plan a lower training.batch_size.",
            ) from None
        except BaseException:
            self.kill()
            raise
        finally:
            watchdog.cancel()
            self._used = time.monotonic()

    def rest(self) -> None:
        """Let it go where it was idle for long: its memory is wanted elsewhere."""
        if self._process is not None and time.monotonic() - self._used > IDLE:
            log.info("the worker was idle for %g minutes and is let go", IDLE / 60)
            self.kill()

    def kill(self) -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(ValueError):
                process.kill()

    def end(self) -> None:
        """Kill it, and return when it is gone: SIGKILL is not at once, for there is much memory to give back."""
        self.kill()
        if self._process is not None:
            self._process.join(_END)

    def _start(self) -> Pipe:
        if self._process is not None and self._process.is_alive():
            assert self._pipe is not None
            return self._pipe
        if self._pipe is not None:
            self._pipe.close()
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit the node's threads and sockets
        self._pipe, theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(theirs, self._site, self._threads), name="worker", daemon=True)
        process.start()
        theirs.close()  # so that its end is seen
        self._process = process
        log.info("the worker runs (pid %s)", process.pid)
        return self._pipe

    def _how_it_ended(self) -> str:
        assert self._process is not None
        self._process.join(5.0)
        code = self._process.exitcode
        return f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def work(pipe: Pipe, folder: Path, threads: int | None) -> None:
    """The worker's process: answer messages until the node is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_the_node()
    threads = threads or os.cpu_count() or 1
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported

    import torch
    from flwr.app import Context, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    import client.app
    from client.node.logs import log_here

    log_here()
    torch.set_num_threads(threads)
    told = 0.0

    def on_step(site: str, done: int, steps: int) -> None:
        nonlocal told
        if done == steps or time.monotonic() - told > _TELL:
            told = time.monotonic()
            pipe.send(("step", done, steps))

    client.app.on_step = on_step

    def answer(message: "Message", node: int) -> "Message":
        run = message.metadata.run_id
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, node, 0
        pipe.send(("about", *_about(message)))
        return client.app.app(message, Context(run, node, {client.app.SITE_FOLDER: str(folder)}, RecordDict(), {}))

    while True:
        try:
            node, parcel = pipe.recv(), receive_parcel(pipe)
        except (EOFError, OSError):
            return
        try:
            reply = pack(answer(unpack(parcel), node))
        except MemoryError:
            log.exception("out of memory")
            reply = pack(messages.error_reply("out-of-memory", parcel.header))
        except Exception:
            log.exception("a message could not be answered")
            reply = pack(messages.error_reply("internal-error", parcel.header))
        del parcel
        pipe.send(("reply",))
        send_parcel(pipe, reply)
        del reply


def _about(message: "Message") -> tuple[str, int | None]:
    """The study's name and round of a request, for the site's own eyes."""
    try:
        number = message.content.config_records[messages.CONFIG].get("server-round")
        return messages.read_plan(message).study.name, number if isinstance(number, int) else None
    except Exception:  # the handlers will say what is wrong with it
        return "", None


def _end_with_the_node() -> None:
    """A kill -9 of the node, too."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-the-node", daemon=True).start()

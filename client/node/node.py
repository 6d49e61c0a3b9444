"""The node: it asks the coordinator for messages, has the worker answer them, and sends the replies.

It opens no port, imports no torch, runs no code that came. Messages are answered one after the other.
"""

import logging
import signal
import threading
import time
from collections import OrderedDict
from pathlib import Path
from types import FrameType

from client.node.bundle import check_bundle
from client.node.connection import Connection
from client.node.failures import RunEndedError, StoppedError
from client.node.keys import load_key
from client.node.parcel import Parcel, pack
from client.node.session import PULSE, Session, open_session
from client.node.status import StatusFile, utc_now
from client.node.worker import ResidentWorker
from client.site import Coordinator, open_site
from common import messages
from common.errors import FednotesError, InputError

log = logging.getLogger("fednotes.node")
_ACTIVE, _IDLE = 0.5, 2.0  # seconds between two polls: while a run goes on, and while none does
_CHECK = 5.0  # seconds between two questions whether it does
_AGAIN = 10.0  # seconds until a lost connection is tried again
_RUNS = 16  # whose bundles are remembered as checked


def run_node(folder: Path) -> None:
    """Serve until SIGTERM or SIGINT, which raise SystemExit(0).

    Raises:
        InputError: `site.toml`, the key or the CA's certificate is wrong. MachineError: `already-running`.
    """
    folder = folder.resolve()
    coordinator = open_site(folder).coordinator
    with open_session(folder) as session:
        Node(folder, coordinator, session).run()


class Node:
    def __init__(self, folder: Path, coordinator: Coordinator, session: Session) -> None:
        self._coordinator, self._session = coordinator, session
        self._key, self._ca = load_key(coordinator.key), read_ca(coordinator.ca)
        self._stop = threading.Event()
        self._worker = ResidentWorker(folder, coordinator.threads)
        self._status = StatusFile(folder, coordinator.address)
        self._bundles: OrderedDict[int, FednotesError | None] = OrderedDict()
        self._run: int | None = None  # that goes on, as far as we know
        self._asked = 0.0

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_stop)
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()
        try:
            while True:
                self._status.idle("connecting")
                try:
                    self._connect()
                except FednotesError as error:
                    self._status.failed(error)
                    self._status.write()
                self._worker.kill()  # nobody hears what it finds
                self._stop.wait(_AGAIN)
        finally:
            self._worker.end()
            self._status.idle("stopped")
            self._status.write()

    def _beat(self) -> None:
        self._session.beat()
        while not self._stop.wait(PULSE):
            self._session.beat()

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        for known in (signal.SIGTERM, signal.SIGINT):
            signal.signal(known, signal.SIG_IGN)  # the end is orderly, and begins once
        self._stop.set()
        raise SystemExit(0)

    def _connect(self) -> None:
        """Serve for as long as the coordinator lets us. Raises FednotesError, which says why it does not."""
        with Connection(self._coordinator.address, self._ca, self._key, self._session, self._stop) as connection:
            log.info("connected to %s as node %d", connection.address, connection.number)
            self._status.update(connected_since=utc_now())
            self._status.idle("waiting")
            self._status.write()
            if header := self._session.unanswered():
                # The coordinator hands a message out once: it would wait for this one until the round's end.
                error = FednotesError("node-restarted", "The node was ended while it worked on a message.")
                self._status.failed(error)
                connection.send(pack(messages.error_reply(error.code, header)))
            while True:
                try:
                    parcel = connection.receive()
                    if parcel is not None:
                        self._serve(connection, parcel)
                        continue
                    self._look_at_the_run(connection)
                except FednotesError as error:
                    if error.code != "coordinator-unreachable":
                        raise
                    self._status.failed(error)
                    self._stop.wait(_IDLE)
                self._worker.rest()
                self._status.update()
                self._stop.wait(_IDLE if self._run is None else _ACTIVE)

    def _look_at_the_run(self, connection: Connection) -> None:
        """Poll quickly only while a run goes on."""
        if self._run is not None and time.monotonic() - self._asked > _CHECK:
            self._asked = time.monotonic()
            if not connection.running(self._run):
                self._run = None

    def _serve(self, connection: Connection, parcel: Parcel) -> None:
        started, metadata = time.monotonic(), parcel.header.metadata
        self._run, self._asked = metadata.run_id, started
        self._status.update(state="working", run=str(metadata.run_id), message=metadata.message_type)
        try:
            reply = self._answer(connection, parcel)
            self._status.update(state="sending")
            if connection.send(reply, time.monotonic() - started):
                self._status.update(served=self._status.now.served + 1)
            else:
                log.info("run %d ended before its reply was sent", metadata.run_id)
        except RunEndedError:
            log.info("run %d was stopped; so is the work for it", metadata.run_id)
            self._session.answered()
            self._run = None
        except StoppedError:
            raise SystemExit(0) from None
        self._status.idle("waiting")

    def _answer(self, connection: Connection, parcel: Parcel) -> Parcel:
        """The worker's reply, or an error that says only its code."""
        try:
            self._check_bundle(connection, parcel.header.metadata.run_id)
            return self._worker.answer(
                parcel,
                connection.number,
                min(self._coordinator.max_hours_per_message * 3600, parcel.header.metadata.ttl),  # then nobody waits
                running=lambda: self._goes_on(connection, parcel.header.metadata.run_id),
                on_about=lambda study, number: self._status.update(study=study, round=number),
                on_step=self._status.step,
            )
        except FednotesError as error:
            self._status.failed(error)
            return pack(messages.error_reply(error.code, parcel.header))

    def _goes_on(self, connection: Connection, run: int) -> bool:
        try:
            return connection.running(run)
        except FednotesError as error:
            if error.code == "not-registered":  # the site was removed: nobody takes its replies
                raise RunEndedError from None
            return True  # it may: an outage is no reason to lose the work

    def _check_bundle(self, connection: Connection, run: int) -> None:
        """Once for a run. Raises FednotesError of `check_bundle`."""
        if run not in self._bundles:
            try:
                check_bundle(connection.bundle(run))
                self._bundles[run] = None
            except FednotesError as error:
                if not error.code.startswith("bundle-"):
                    raise
                self._bundles[run] = error
            while len(self._bundles) > _RUNS:
                self._bundles.popitem(last=False)
        if refused := self._bundles[run]:
            raise refused


def read_ca(path: Path) -> bytes:
    """Raises InputError `ca-unreadable`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            "ca-unreadable",
            f"The coordinator's certificate {path} cannot be read: {error.strerror}.",
            "Take it from the coordinator's kit, and name it in site.toml.",
        ) from None

"""A study as a run of MLflow: its tags say how far it was mirrored.

By MLflow's client and not its `start_run`, which would send who runs this, from which folder and commit.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from common.errors import InputError, MachineError
from common.files import explained
from server.mirror.figures import Step, parameters, steps, tags
from server.mirror.sink import Written
from server.record.reader import StudyRecord

# All before MLflow is loaded. No telemetry: it asks a host of its makers for settings as soon as it is imported.
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# It prints links to where our JSON goes, and tells of every table that it makes.
os.environ |= {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
# A server that is away is known to be so within half a minute, and not ten, unless its user wants otherwise.
os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"} | os.environ

try:
    from mlflow.entities import Metric, Param, Run, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from requests.exceptions import RequestException
except ImportError as error:
    raise MachineError(
        "mlflow-missing",
        f"MLflow's package is not installed, or cannot be loaded ({error.name}).",
        'In an environment of your own, install this checkout with the extra "mlflow".',
    ) from None

_EXPERIMENT = "Fednotes"
_STUDY, _ROUND, _UNTIL = "fednotes.study", "fednotes.round", "fednotes.until"
_STATUS = {"finished": "FINISHED", "stopped": "FAILED", "interrupted": "KILLED"}  # else "RUNNING"
_METRICS, _PARAMS = 1000, 100  # most that one request may have


class MlflowSink:
    """`uri`: a tracking server (http, https), or an SQLite file of MLflow's.

    Raises InputError `mlflow-uri`, MachineError `mlflow-unreachable`, `mlflow-refuses`, `unwritable`.
    """

    def __init__(self, uri: str, record: StudyRecord) -> None:
        self.where = _checked(uri)
        with self._explained():
            self._client = MlflowClient(tracking_uri=uri)
            run = self._find(record) or self._create(record)
            self._run = run.info.run_id
            self._said = dict(run.data.tags)
            self._status = run.info.status
            given = [Param(key, value) for key, value in parameters(record).items() if key not in run.data.params]
            for some in _batches(given, _PARAMS):
                self._client.log_batch(self._run, params=some)

    def write(self, record: StudyRecord) -> Written:
        written = Written("mlflow", self.where)
        with self._explained():
            for step in filter(self._is_new, steps(record)):
                time = int(step.time.timestamp() * 1000)
                values = [Metric(key, value, time, step.round) for key, value in step.values.items()]
                for some in _batches(values, _METRICS):
                    self._client.log_batch(self._run, metrics=some)
                # Last: a step that a kill cut off is written again, and MLflow keeps equal values once.
                self._tag({_ROUND: str(step.round), _UNTIL: step.time.isoformat()})
                written.add(step, len(values))
            self._tag(tags(record))
            self._end(record)
        return written

    def _find(self, record: StudyRecord) -> Run | None:
        experiment = self._client.get_experiment_by_name(_EXPERIMENT)
        if experiment is None:
            return None
        found = self._client.search_runs([experiment.experiment_id], f"tags.`{_STUDY}` = '{record.id}'", max_results=1)
        return found[0] if found else None

    def _create(self, record: StudyRecord) -> Run:
        experiment = self._client.get_experiment_by_name(_EXPERIMENT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(_EXPERIMENT)
        started = int(record.started.timestamp() * 1000)
        return self._client.create_run(number, started, {_STUDY: record.id}, record.plan.study.name)

    def _is_new(self, step: Step) -> bool:
        """A later round, or one that was done anew since, or the scores."""
        if _UNTIL not in self._said:
            return True
        return step.round > int(self._said[_ROUND]) or step.time > datetime.fromisoformat(self._said[_UNTIL])

    def _tag(self, given: dict[str, str]) -> None:
        new = {key: value for key, value in given.items() if self._said.get(key, "") != value}
        for some in _batches([RunTag(key, value) for key, value in new.items()], _PARAMS):
            self._client.log_batch(self._run, tags=some)
        self._said |= new

    def _end(self, record: StudyRecord) -> None:
        status = _STATUS.get(record.state, "RUNNING")
        if status == self._status:
            return
        if status == "RUNNING":
            self._client.update_run(self._run, status)
        else:
            ended = int((record.finished or record.heartbeat).timestamp() * 1000)
            self._client.set_terminated(self._run, status, ended)
        self._status = status

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """MLflow's own words are left out where they may hold a password."""
        try:
            yield
        except (MlflowException, SQLAlchemyError) as error:
            if isinstance(error.__context__, RequestException):
                raise MachineError(
                    "mlflow-unreachable",
                    f"The tracking server {self.where} does not answer ({type(error.__context__).__name__}).",
                    "See that it runs and that the address is right, then give the command again: it goes on.",
                ) from None
            said = error.error_code if isinstance(error, MlflowException) else type(error).__name__
            raise MachineError(
                "mlflow-refuses",
                f"MLflow at {self.where} did not take it: {said}.",
                "See that it is MLflow, of version 3, that this user may write to it, and its own log.",
            ) from None


def _checked(uri: str) -> str:
    """The address as it may be shown."""
    try:
        url = make_url(uri)
    except ArgumentError:
        url = None
    if url is None or url.drivername not in ("http", "https", "sqlite") or not (url.database or url.host):
        raise InputError(
            "mlflow-uri",
            "The address for --mlflow is neither that of a tracking server nor an SQLite file.",
            "Write https://HOST:PORT, or sqlite:///mlflow.db.",
        )
    if url.drivername == "sqlite":
        file = Path(str(url.database))
        with explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.open("ab").close()
    return url.render_as_string(hide_password=True)


def _batches(values: list[Any], most: int) -> Iterator[list[Any]]:
    rest = iter(values)
    while some := list(islice(rest, most)):
        yield some

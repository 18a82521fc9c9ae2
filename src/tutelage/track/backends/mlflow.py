"""MLflow: the server or database that MLFLOW_TRACKING_URI names, or a database in the run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What the client would do for minutes on end is left to the follower, which tries again by itself.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from tutelage.track.identity import Identity
from tutelage.track.points import Point

TAG = "tutelage.id"
MOST_METRICS, MOST_PARAMS = 1000, 100
"""In one request."""

STATUS = {"done": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED"}
"""Any other end is FAILED."""


class MlFlow:
    """A run of an experiment; a request that returned is stored."""

    durable = True

    def __init__(self, told: Identity, remote: str | None) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or _own_database(told.folder)
        self._client = MlflowClient(uri)
        self.remote: str = remote or self._found(told) or self._begun(told)
        run = self._client.get_run(self.remote)
        self._held = {metric.key: metric.step for metric in self._latest(run.data)}
        self._tell_recipe(told, known=run.data.params)
        if run.info.status != "RUNNING":
            self._client.update_run(self.remote, status="RUNNING")

    def held(self) -> Mapping[str, int]:
        """The last step of each metric."""
        return self._held

    def send(self, points: Sequence[Point]) -> None:
        """Store the points, a step never in two requests unless it has more numbers than one takes."""
        now = int(time.time() * 1000)
        batch: list[Metric] = []
        for point in points:
            metrics = [Metric(name, value, now, point.step) for name, value in point.values.items()]
            if len(batch) + len(metrics) > MOST_METRICS:
                self._client.log_batch(self.remote, metrics=batch)
                batch = []
            batch += metrics
        self._client.log_batch(self.remote, metrics=batch)

    def close(self, status: str | None) -> None:
        """Say how the run ended."""
        if status is not None:
            self._client.set_tag(self.remote, "tutelage.status", status)
            self._client.set_terminated(self.remote, STATUS.get(status, "FAILED"))

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _found(self, told: Identity) -> str | None:
        """The run that a follower began before it could note so."""
        experiment = self._client.get_experiment_by_name(told.project)
        if experiment is None:
            return None
        runs = self._client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{told.id}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _begun(self, told: Identity) -> str:
        run = self._client.create_run(self._experiment(told.project), tags={TAG: told.id}, run_name=told.name)
        return str(run.info.run_id)

    def _latest(self, data: Any) -> Sequence[Metric]:
        """The newest value of each metric with its step; older versions have to be asked for each."""
        if hasattr(data, "_metric_objs"):
            latest: Sequence[Metric] = data._metric_objs
            return latest
        return [
            max(self._client.get_metric_history(self.remote, key), key=lambda metric: metric.step)
            for key in data.metrics
        ]

    def _tell_recipe(self, told: Identity, known: Mapping[str, str]) -> None:
        """Each option as a parameter. MLflow lets none change: what a resumed run changed keeps its first value."""
        options = [Param(name, value[:6000]) for name, value in _flat(told.config) if name not in known]
        for start in range(0, len(options), MOST_PARAMS):
            self._client.log_batch(self.remote, params=options[start : start + MOST_PARAMS])


def open_run(told: Identity, remote: str | None) -> MlFlow:
    """The run, begun or found again."""
    return MlFlow(told, remote)


def _own_database(folder: Path) -> str:
    """A database in the run folder. It is made under another name: one half made could not be mended."""
    path, part = folder / "mlflow.db", folder / ".mlflow.db.part"
    if not path.exists():
        part.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
        part.replace(path)
    return f"sqlite:///{path}"


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        return [] if value is None else [(name[:250], str(value))]
    return [found for key, part in parts for found in _flat(part, f"{name}.{key}" if name else str(key))]

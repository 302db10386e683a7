"""Figures of trainings in MLflow, where the environment variable MLFLOW_TRACKING_URI says where it is."""

import hashlib
import importlib.util
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tasks.errors import InputError

VARIABLE = "MLFLOW_TRACKING_URI"
_KEY_TAG = "minority.key"
#: A server that is away must not hold a training up for minutes; a user's own settings win.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_MOST_AT_ONCE = 1000  # metrics in one request, by MLflow's limits
_LONGEST_VALUE = 500  # of a parameter or tag
_log = logging.getLogger(__name__)


def require_tracking() -> None:
    """Find out, before any work, whether figures can be told where they are to be.

    Raises:
        InputError: MLFLOW_TRACKING_URI is set, and mlflow is not installed or does not answer.
    """
    if os.environ.get(VARIABLE):
        _reached(lambda client: client.search_experiments(max_results=1))


class Tracking:
    """A run in MLflow. Does nothing where MLFLOW_TRACKING_URI is not set.

    What is told with the same key is told to the same run, so that a training that goes on has one.

    Args:
        experiment: Name of the experiment, unless MLFLOW_EXPERIMENT_NAME gives another.
        name: Name of the run.
        key: What tells it from all others.
        params: Settings to show, by dotted names.
        tags: Texts to find it by.

    Raises:
        InputError: As of `require_tracking`.
    """

    def __init__(
        self, experiment: str, name: str, *, key: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> None:
        self._client: Any = None
        self._run = ""
        if not os.environ.get(VARIABLE):
            return
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]

        def open_run(client: Any) -> tuple[Any, str]:
            wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", experiment)
            found = client.get_experiment_by_name(wanted)
            number = client.create_experiment(wanted) if found is None else found.experiment_id
            earlier = client.search_runs([number], f"tags.`{_KEY_TAG}` = '{digest}'", max_results=1)
            if earlier:
                return client, str(earlier[0].info.run_id)
            told = {name: str(value)[:_LONGEST_VALUE] for name, value in tags.items()} | {_KEY_TAG: digest}
            run = str(client.create_run(number, tags=told, run_name=name).info.run_id)
            from mlflow.entities import Param

            shown = [Param(_name(key), str(value)[:_LONGEST_VALUE]) for key, value in params.items()]
            for start in range(0, len(shown), 100):
                client.log_batch(run, params=shown[start : start + 100])
            return client, run

        self._client, self._run = _reached(open_run)

    def last_step(self, metric: str) -> int:
        """The last step at which a metric was told; -1 where it never was."""
        if self._client is None:
            return -1
        steps = [entry.step for entry in self._client.get_metric_history(self._run, _name(metric))]
        return max(steps, default=-1)

    def log(self, figures: Mapping[str, float | None], *, step: int = 0) -> None:
        """Tell figures; those that are none are left out. A server that went away is told of once, in the log."""
        if self._client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        told = [
            Metric(_name(name), float(value), now, step)
            for name, value in figures.items()
            if value is not None and math.isfinite(value)
        ]
        try:
            for start in range(0, len(told), _MOST_AT_ONCE):
                self._client.log_batch(self._run, metrics=told[start : start + _MOST_AT_ONCE])
        except Exception as error:  # whatever a server on the way raises, the training goes on
            _log.warning("MLflow at %s does not answer any more (%s); nothing more is told to it.", _place(), error)
            self._client = None

    def finish(self) -> None:
        """Mark the run as finished."""
        if self._client is not None:
            self._client.set_terminated(self._run)


def _reached(call: Any) -> Any:
    if importlib.util.find_spec("mlflow") is None:
        raise InputError(
            f"{VARIABLE} is set, but mlflow is not installed; pip install 'minority-augment[mlflow]', or unset it."
        )
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    try:
        return call(MlflowClient())
    except Exception as error:  # its stores raise errors of many libraries
        reason = " ".join(str(error).split()).replace(os.environ[VARIABLE], _place())[:200]
        raise InputError(
            f"MLflow at {_place()} cannot be used ({reason}); start it, correct {VARIABLE}, or unset it."
        ) from error


def _place() -> str:
    """Where MLflow is, without a password that the address may hold."""
    parts = urlsplit(os.environ.get(VARIABLE, ""))
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.hostname else parts.path


def _name(text: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w./ :-]", "_", text)[:240]


def flattened(settings: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Settings in sections by their dotted names.

    Example:
        >>> flattened({"seed": 0, "training": {"steps": 5}})
        {'seed': 0, 'training.steps': 5}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flattened(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return found

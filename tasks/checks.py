"""What is checked before any device time is spent: everything that a run needs, in one line where it is missing."""

from datasets.storage.store import Store
from tasks.config.runs import AugmentConfig
from tasks.downstream.data import sources_of
from tasks.downstream.trainings import check_arms
from tasks.errors import InputError
from tasks.inputs.real_data import load_real_data
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import Workspace, open_backbone, open_workspace


def check_inputs(config: AugmentConfig) -> Workspace:
    """Open all that a run needs.

    Returns:
        The workspace, whose run is claimed in the store.

    Raises:
        InputError: What is missing or does not fit, all of it in one line.
    """
    workspace = check_workspace(config)
    try:
        open_run_store(workspace)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    return workspace


def check_workspace(config: AugmentConfig) -> Workspace:
    """Open data, backbone and store without claiming a run.

    Raises:
        InputError: What is missing or does not fit, all of it in one line.
    """
    checks = (_check_data, _check_backbone, _check_store, _check_downstream)
    problems = [problem for check in checks if (problem := check(config))]
    if problems:
        raise InputError(" Also: ".join(problems))
    return open_workspace(config)


def _check_data(config: AugmentConfig) -> str | None:
    try:
        load_real_data(config.dataset)
    except InputError as error:
        return str(error)
    return None


def _check_backbone(config: AugmentConfig) -> str | None:
    try:
        real = None if _check_data(config) is not None else load_real_data(config.dataset)
        open_backbone(config.backbone, real)
    except InputError as error:
        return str(error)
    return None


def _check_store(config: AugmentConfig) -> str | None:
    try:
        Store(config.store).check_writable(config.name)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _check_downstream(config: AugmentConfig) -> str | None:
    if config.downstream is None or config.downstream.seeds == 0 or _check_data(config) is not None:
        return None
    try:
        check_arms(config.downstream, load_real_data(config.dataset), sources=sources_of(config))
    except InputError as error:
        return str(error)
    return None

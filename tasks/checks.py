"""What is checked before any device time is spent: everything that a run needs, in one line where it is missing."""

import logging

from datasets.storage.store import Store
from minority.sampling.diffusion_classifier import require_classes
from minority.sampling.draw import check_backbone
from tasks.augment.planning import quotas
from tasks.config.limits import MOST_CANDIDATES
from tasks.config.runs import AugmentConfig
from tasks.config.sections import DatasetConfig
from tasks.downstream.backbone_outputs import pretrained_kind
from tasks.downstream.data import sources_of
from tasks.downstream.trainings import check_arms
from tasks.errors import InputError
from tasks.execution.tracking import require_tracking
from tasks.inputs.planned_groups import planned_real_data
from tasks.inputs.pretrained_on import check_pretrained
from tasks.inputs.real_data import load_real_data
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import Models, open_backbone, open_models


def check_inputs(config: AugmentConfig) -> Models:
    """Open all that a run needs.

    Returns:
        The run's models; the run is claimed in the store.

    Raises:
        InputError: What is missing or does not fit, all of it in one line.
    """
    models = check_models(config)
    try:
        open_run_store(models.run)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    return models


def check_models(config: AugmentConfig) -> Models:
    """Open data, backbone and store without claiming a run.

    Raises:
        InputError: What is missing or does not fit, all of it in one line.
    """
    checks = (_check_data, _check_plan, _check_backbone, _check_overlap, _check_store, _check_downstream)
    problems = [problem for check in checks if (problem := check(config))]
    if problems:
        raise InputError(" Also: ".join(problems))
    return open_models(config)


def account_of_images(config: DatasetConfig) -> str:
    """In which part every real image is, or why it is in none, as one paragraph for the start of a run.

    Raises:
        InputError: The images cannot be read.
    """
    return load_real_data(config).account.to_text()


def _check_data(config: AugmentConfig) -> str | None:
    try:
        planned_real_data(config)
    except InputError as error:
        return str(error)
    return None


def _check_plan(config: AugmentConfig) -> str | None:
    if _check_data(config) is not None:
        return None
    wanted = sum(quotas(planned_real_data(config), config.plan))
    if wanted * config.plan.candidates_per_image <= MOST_CANDIDATES:
        return None
    return (
        f"plan asks for {wanted:,} images of {config.plan.candidates_per_image:g} candidates each, at most "
        f"{MOST_CANDIDATES:,} candidates fit into a run; lower plan.quota or plan.candidates_per_image."
    )


def _check_backbone(config: AugmentConfig) -> str | None:
    try:
        real = None if _check_data(config) is not None else planned_real_data(config)
        backbone = open_backbone(config.backbone, real)
        check_backbone(backbone, config.sampler)
        if config.scores.zero_shot is not None:
            require_classes(backbone)
    except ValueError as error:
        return str(error)
    return None


def _check_overlap(config: AugmentConfig) -> str | None:
    if _check_data(config) is not None:
        return None
    try:
        overlap = check_pretrained(config.backbone, load_real_data(config.dataset))
    except InputError as error:
        return str(error)
    if overlap is not None:
        logging.getLogger(__name__).info("%s", overlap.to_text())
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
        require_tracking()
        sources = sources_of(config, policies=config.downstream.policies)
        real = planned_real_data(config)
        check_arms(config.downstream, real, sources=sources, pretrained=pretrained_kind(config, real))
    except InputError as error:
        return str(error)
    return None

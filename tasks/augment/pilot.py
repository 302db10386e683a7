"""What is said of a pilot round of which nothing passed: to whoever started the run, on a terminal or in Prefect."""

import logging

from prefect.logging import get_run_logger

_TEXT = (
    "None of the first %d candidates passed the filters; no more are drawn (plan.pilot). The report says why; a weaker "
    "sampler (minority calibrate finds it) or a backbone that is trained longer may help."
)


def tell_of_failed_pilot(num_candidates: int) -> None:
    """Warn in the log of the run, and on the terminal, which does not show that log.

    Args:
        num_candidates: Candidates that were drawn.
    """
    get_run_logger().warning(_TEXT, num_candidates)
    logging.getLogger(__name__).warning(_TEXT, num_candidates)

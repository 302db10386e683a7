"""Warnings of a run that whoever started it is to read, in Prefect or on a terminal."""

import logging

from prefect.logging import get_run_logger


def warn(text: str, *values: object) -> None:
    """Warn in the log of the run, and on the terminal, which shows warnings of this project's loggers alone.

    Args:
        text: With places for the values, as `logging` has them.
        values: What stands there.
    """
    get_run_logger().warning(text, *values)
    logging.getLogger(__name__).warning(text, *values)

"""The random streams of splits and tails: one for each choice, so that changing one leaves the others alone."""

from enum import IntEnum


class Stream(IntEnum):
    """What a stream chooses. A number is never given anew: the published splits follow from it."""

    TEST = 0
    EXPONENTIAL_TAIL = 1
    VALIDATION = 2
    VALIDATION_CAP = 3
    SPURIOUS = 4
    STEP_TAIL = 5
    POOL = 6
    VALIDATION_EACH = 7

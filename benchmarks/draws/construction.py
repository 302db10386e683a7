"""What a construction of the study is: one class in one file, which says how a training draw is made.

To add one, write a class with these attributes and put it into CONSTRUCTIONS of __main__.py. Everything else (the
trainings, their checkpoints, the choice on validation, intervals, verdicts and tables) is shared.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from minority.downstream.arms import Arm
from minority.downstream.data import DownstreamData
from minority.downstream.settings import DownstreamSettings

#: Told what is going on.
Say = Callable[[str], None]
#: Families of recipes that every construction has; it may add others.
REAL, BACKBONE, DRAWN = "real images alone", "the backbone without drawing", "with drawn images"


class Construction(Protocol):
    """One set, cut in one way.

    Attributes:
        name: As it is asked for on the command line.
        says: What is compared, in a sentence for the table.
        settings: The budget of every training.
        seeds: Tested trainings of every arm's chosen trial.
        published: Recipe -> what a paper reports on this very cut, in words; empty where there is none.
    """

    name: str
    says: str
    settings: DownstreamSettings
    seeds: int
    published: Mapping[str, str]

    def missing(self) -> str | None:
        """What has to be brought before it can run, in a sentence; None where it can."""
        ...

    def arms(self) -> Sequence[Arm]:
        """Every recipe, in the order of the table."""
        ...

    def families(self) -> Mapping[str, Sequence[str]]:
        """Family -> names of its arms. The best of a family is chosen on validation images, draw by draw.

        DRAWN is compared with every other family.
        """
        ...

    def make(self, draw: int, folder: Path, *, say: Say) -> DownstreamData:
        """One training draw: split, backbone and generation of its own, all decided by its number.

        Args:
            draw: Its number, 0 first.
            folder: Keeps what is made on the way, so that the next call reads it.
            say: Told what is going on.

        Returns:
            The images, with the synthetic ones and the backbone's reading of them. No test image may be in anything
            that is fitted, and none in what the backbone saw; `make` checks it.
        """
        ...

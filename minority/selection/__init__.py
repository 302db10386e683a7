"""Whether a candidate is kept: filters, and the choice under quotas."""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.selection.choice import Spread, choose
    from minority.selection.discriminator import Discriminator, DiscriminatorSettings
    from minority.selection.diversity import k_centre
    from minority.selection.filter_building import build_filter, train_discriminator
    from minority.selection.filter_contract import CandidateFilter, Verdicts
    from minority.selection.labelling import Labeller
    from minority.selection.policy import FILTERS, POLICIES, refusals
    from minority.selection.settings import HeldOutRules, SelectionSettings

__all__ = [
    "FILTERS",
    "POLICIES",
    "CandidateFilter",
    "Discriminator",
    "DiscriminatorSettings",
    "HeldOutRules",
    "Labeller",
    "SelectionSettings",
    "Spread",
    "Verdicts",
    "build_filter",
    "choose",
    "k_centre",
    "refusals",
    "train_discriminator",
]

__getattr__ = exported_from(__file__)

"""Training, validation and test parts; artificial long tails."""

from typing import TYPE_CHECKING

from datasets._exports import exported_from

if TYPE_CHECKING:
    from datasets.splits.account import Account, take_account
    from datasets.splits.identity_split import split_by_identity, split_set
    from datasets.splits.stratified import Split, SplitSettings, long_tail, make_split, stratified_split

__all__ = [
    "Account",
    "Split",
    "SplitSettings",
    "long_tail",
    "make_split",
    "split_by_identity",
    "split_set",
    "stratified_split",
    "take_account",
]

__getattr__ = exported_from(__file__)

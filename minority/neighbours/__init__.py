"""Exact nearest neighbours, and what is computed from them."""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.neighbours.pairwise import nearest
    from minority.neighbours.reference import Neighbourhood, RealReference

__all__ = ["Neighbourhood", "RealReference", "nearest"]

__getattr__ = exported_from(__file__)

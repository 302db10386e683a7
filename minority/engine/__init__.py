"""How a network is run fast: CUDA graphs, static shapes, checkpointing."""

from typing import TYPE_CHECKING

from minority._exports import exported_from

if TYPE_CHECKING:
    from minority.engine.prepare import EngineSettings

__all__ = ["EngineSettings"]

__getattr__ = exported_from(__file__)

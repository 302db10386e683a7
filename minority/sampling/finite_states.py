"""A network that answers NaN or infinity is refused by name, with what to do; its black images are never made."""

from collections.abc import Iterator
from contextlib import contextmanager

from minority.backbones.backbone import Backbone, Precision
from minority.diffusion.finite import NotFiniteError

_REMEDIES = {
    "fp32": "its weights are broken, or guidance pushes too hard; take another checkpoint, or a smaller guidance scale",
    "bf16": "bf16 keeps three digits, which can be too few; set precision to fp32, or a smaller guidance scale",
    "fp16": "fp16 ends at 65504; set precision to bf16 or fp32, or a smaller guidance scale",
}


@contextmanager
def finite_states(backbone: Backbone, *, precision: Precision = "fp32") -> Iterator[None]:
    """Say of which backbone numbers are not finite, in which precision, and the remedy.

    Args:
        backbone: Whose network is called in this context.
        precision: In which it is.

    Raises:
        ValueError: In place of a NotFiniteError.
    """
    try:
        yield
    except NotFiniteError as error:
        raise ValueError(f"backbone {backbone.name} in {precision}: {error}; {_REMEDIES[precision]}.") from error

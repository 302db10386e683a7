"""Numbers that are none: a broken network answers NaN or infinity, and NaN becomes a black image without a word."""

import torch
from torch import Tensor


class NotFiniteError(ValueError):
    """What should be numbers is NaN or infinite; says what, and where."""


def require_finite(values: Tensor, what: str) -> None:
    """Refuse NaN and infinity.

    Args:
        values: Of any shape; one number not finite is enough.
        what: What they are, as the subject of a sentence in the singular.

    Raises:
        NotFiniteError: With their share.
    """
    finite = torch.isfinite(values.detach())
    if not bool(finite.all()):
        share = 1 - float(finite.float().mean())
        raise NotFiniteError(f"{what} is NaN or infinite in {max(share, 0.0001):.2%} of its numbers")

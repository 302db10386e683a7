"""Gradients as guidance uses them: pulled back through the denoiser, brought to one size, never NaN.

Shapes: B samples, C channels, H x W pixels.
"""

import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.chain import Chain, Estimate


def unit_peak(gradient: Tensor) -> Tensor:
    """Scale each sample to a largest absolute value of 1; all zero (or not finite) gives zero, never NaN."""
    gradient = finite(gradient.float())
    peak = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    return torch.where(peak > 0, gradient / peak.clamp(min=torch.finfo(gradient.dtype).tiny), 0.0)


def finite(gradient: Tensor) -> Tensor:
    """Zero where a gradient is not finite: no push rather than a wrong one."""
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def refusal_where_offloaded(backbone: Backbone, *, network: bool, decoder: bool) -> str | None:
    """Why an offloaded backbone cannot be guided by such gradients: their weights have left the device by then.

    Args:
        backbone: Of any kind.
        network: Whether the denoising network is differentiated.
        decoder: Whether the decoder of latents is.
    """
    if backbone.offload is None or not (decoder or (network and backbone.offload == "sequential")):
        return None
    return (
        f"backbone {backbone.name} is offloaded ({backbone.offload}), so its "
        f"{'decoder' if decoder else 'network'} cannot be differentiated; leave backbone.offload out, or guide "
        "without (self_guidance: {jacobian: false, space: state})."
    )


def through_denoiser(gradient: Tensor, estimate: Estimate, chain: Chain) -> Tensor:
    """Pull a gradient with respect to x0_hat back to x_t, by one backward pass of the network.

    Each sample's gradient passes at a size that half precision can hold, 1/sqrt(abar_t) and all. The factors are
    powers of two, so in fp32 they change no bit.

    Args:
        gradient: (B, C, H, W) with respect to x0_hat.
        estimate: From a step with `needs_gradient`.
        chain: Counts the cost.

    Returns:
        (B, C, H, W) with respect to x_t, fp32.
    """
    gradient = finite(gradient)
    peak = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    signal = float(chain.schedule.abar[estimate.step]) ** 0.5
    amplified = peak / signal if signal > 0 else peak  # without signal x0_hat does not come from a division by it
    # 2 ** -exponent brings the peak into [0.5, 1); a flat gradient stays as it is.
    exponent = torch.where(amplified > 0, torch.frexp(amplified.clamp(min=1e-30)).exponent, 0)
    (pulled,) = torch.autograd.grad(
        estimate.x0_hat,
        estimate.x_t,
        grad_outputs=torch.ldexp(gradient, -exponent).to(estimate.x0_hat),
        retain_graph=chain.pullbacks > 1,
    )
    chain.cost.backwards += estimate.calls
    return finite(torch.ldexp(pulled.float(), exponent))

"""KL of the dynamics in a linear-Gaussian model: divergences of the noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cai.distributions.degenerate_normal import matvec
from cai.gaussian import tilted_noise
from cai.gaussian.forms import Gaussian
from cai.gaussian.linear_gaussian import LinearGaussian


def tilt_divergences(
    value: tilted_noise.Value, factor: Tensor, theta: float, around: Gaussian
) -> tuple[Tensor, Tensor]:
    """KL(tilted noise ‖ true noise) and KL(true ‖ tilted), in expectation over its mean.

    Args:
        value: V of the step after, as arrays.
        factor: L (..., n, n), the root of the covariance.
        theta: η/α.
        around: the distribution of the mean μ of the state before its noise.

    Returns:
        Two tensors (...), nats.
    """
    spectrum = tilted_noise.spectrum(value, factor.numpy(), theta)
    f, _ = (torch.as_tensor(x) for x in tilted_noise.pull(spectrum[1], spectrum[3], theta, ""))
    _, lam, Y, y = (torch.as_tensor(x) for x in spectrum)
    # In the eigenbasis of L'PL the noise shifts by f (y - Y'μ); its variance is 1/(1 + θλ).
    slope = y - matvec(Y.mT, around.mean)
    square = slope**2 + (Y * (around.covariance @ Y)).sum(-2)
    if math.isinf(theta):
        moved = torch.where((f != 0).any(-1), torch.inf, 0.0).double()
        return moved, moved
    stretch = theta * lam
    log = stretch.log1p()
    tilted = 0.5 * (log - stretch / (1 + stretch) + f**2 * square).sum(-1)
    true = 0.5 * (stretch - log + theta * f * square).sum(-1)
    return tilted, true


def arrivals(model: LinearGaussian, state_actions: Gaussian) -> Gaussian:
    """The distribution of the mean A s + B a + c of s', from the moments of (s, a)."""
    AB = model.joint_dynamics
    mean = matvec(AB, state_actions.mean) + model.drift
    return Gaussian(mean, AB @ state_actions.covariance @ AB.mT)

"""The weights of a local model: a concave function, where minus the Hessians are positive.

With g and M = -H linear in the weights ψ, and x = M⁻¹ g,

    log p = -½ g'M⁻¹g + ½ log |M| - (d/2) log 2π,
    ∂_i = -g_i'x + ½ x'M_i x + ½ tr M⁻¹M_i,
    ∂_ij = -(g_i - M_i x)'M⁻¹(g_j - M_j x) - ½ tr M⁻¹M_i M⁻¹M_j ≤ 0,

since g'M⁻¹g is convex in (g, M), and log |M| is concave.
"""

from __future__ import annotations

import math
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from cai import checks
from cai.inference.local_models._expansion import Expansion
from cai.inference.searches.rounds import Rounds

_ENOUGH = 1e-10  # nats that a step would gain
_SUFFICIENT = 1e-4  # of the gain that a linear function would bring (Armijo)
_HALVINGS = 60
_NONE = 1e-11  # of the largest eigenvalue: what the data say nothing about
_UNKNOWN, _SHARE = 1e-9, 1e-6  # of the largest eigenvalue; of a combination, in one weight
_FAR = 1e9  # times the first weights: they grow for ever
_TOWARDS, _SHARPER = 200, 4.0  # steps towards a start, and how the barrier is sharpened
_ADVICE = (
    "let every action cost something, by a Gaussian action prior or a feature such as -|a|²; "
    "drop demonstrations that are far from good; or give start= weights that are far larger for it"
)


class LocalScores(NamedTuple):
    """All demonstrations at some weights.

    Attributes:
        values: (n,), nats.
        slope: (k,).
        information: (k, k), minus the second derivatives.
    """

    values: Tensor
    slope: Tensor
    information: Tensor


class LocalSearch(Rounds):
    """Newton's method with backtracking.

    Args:
        local: the demonstrations.
        start: (k,), where all Hessians are negative definite; None to look for such weights.
        steps: at most.

    Attributes:
        history: the log-density at each step, nats.
        weights: (k,).
        at: what is known there.

    Raises:
        ValueError: if there are no such weights.
    """

    def __init__(self, local: Expansion, start: Tensor | None, steps: int) -> None:
        super().__init__("laplace_reward", steps)
        self._local = local
        self.weights = self._feasible() if start is None else start
        found = scored(local, self.weights)
        if found is None:
            _refuse(local, self.weights, "start")
        self.at: LocalScores = found
        self._size = self._sizes(self.weights)

    def step(self) -> None:
        """One Newton step, halved until it gains enough."""
        self.history.append(float(self.at.values.sum()))
        scale = self.at.information.diagonal().clamp(min=1e-300).sqrt()
        unit = self.at.information / torch.outer(scale, scale)
        inverse = torch.linalg.pinv(unit, rtol=_NONE, hermitian=True)
        direction = inverse @ (self.at.slope / scale) / scale
        gain = float(direction @ self.at.slope)
        if gain < _ENOUGH:
            self.end("a further step would gain less than 1e-10 nats", True)
            return
        for halving in range(_HALVINGS):
            weights = self.weights + direction / 2**halving
            found = scored(self._local, weights)
            if found is None:
                continue
            more = float((found.values - self.at.values).sum())
            if more >= _SUFFICIENT * gain / 2**halving:
                self.weights, self.at = weights, found
                self.done += 1
                break
        else:
            self.end("no step along Newton's direction gains anything", gain < 1e-6)
            return
        if float((self._sizes(self.weights) / self._size).max()) > _FAR:
            said = "weights grow without end, as if no action could have been better"
            self.end(said)

    def _sizes(self, weights: Tensor) -> Tensor:
        """(k,), the sizes of weights, of one at least in units of what their features' curve."""
        curves = self._local.curvatures[:, :-1].abs().amax((0, 2, 3)).clamp(min=1e-300)
        return weights.abs() + 1 / curves

    def unidentified(self) -> Tensor:
        """(k,), boolean: features of combinations that change no density."""
        scale = self.at.information.diagonal().sqrt()
        still = scale == 0
        scale = torch.where(still, 1.0, scale)
        values, vectors = torch.linalg.eigh(self.at.information / torch.outer(scale, scale))
        flat = vectors[:, values <= _UNKNOWN * values[-1]]
        return still | (flat.abs() > _SHARE).any(1)

    def _feasible(self) -> Tensor:
        """Weights at which all M > 0: zeros, or those where M + s I > 0 with an s below zero.

        By Newton's method on -τ s + Σ log |M + s I|, with τ that grows.

        Raises:
            ValueError: if none are found.
        """
        n, _, d = self._local.slopes.shape
        k = self._local.slopes.shape[1] - 1
        weights = torch.zeros(k, dtype=torch.float64)
        if scored(self._local, weights) is not None:
            return weights
        sizes = self._local.curvatures[:, :-1].abs().amax((0, 2, 3))
        unit = torch.where(sizes > 0, sizes, 1.0)
        M = self._local.curvatures[:, :-1] / unit.view(-1, 1, 1)
        eye = torch.eye(d, dtype=torch.float64).expand(n, 1, d, d)
        parts, rest = torch.cat([M, eye], 1), self._local.curvatures[:, -1]
        low = float(torch.linalg.eigvalsh(rest).min())
        x = torch.cat([weights, weights.new_tensor([1.0 - low])])
        sharp = torch.zeros_like(x)
        sharp[-1] = n * d / (1.0 - low)
        for _ in range(_TOWARDS):
            inverse = torch.linalg.inv(_combined(parts, rest, x))
            products = torch.einsum("nab,nkbc->nkac", inverse, parts)
            slope = torch.einsum("nkaa->k", products) - sharp
            curve = torch.einsum("nkab,nlba->kl", products, products)
            step = torch.linalg.pinv(curve, rtol=1e-13, hermitian=True) @ slope
            share = 1.0
            while not _positive(_combined(parts, rest, x + share * step)) and share > 1e-12:
                share /= 2
            x = x + 0.9 * share * step if share < 1 else x + step
            if x[-1] < 0 and scored(self._local, x[:-1] / unit) is not None:
                return x[:-1] / unit
            if float(step @ slope) < 0.1:
                sharp[-1] *= _SHARPER
        _refuse(self._local, x[:-1] / unit, "weights")


def _combined(parts: Tensor, rest: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("k,nkab->nab", x, parts) + rest


def _positive(M: Tensor) -> bool:
    return bool((torch.linalg.cholesky_ex(M).info == 0).all())


def scored(local: Expansion, weights: Tensor) -> LocalScores | None:
    """Log-densities and their derivatives; None unless all Hessians are negative definite."""
    g_i, M_i = local.slopes[:, :-1], local.curvatures[:, :-1]
    g = torch.einsum("k,nkd->nd", weights, g_i) + local.slopes[:, -1]
    M = _combined(M_i, local.curvatures[:, -1], weights)
    root, info = torch.linalg.cholesky_ex(M)
    if (info != 0).any() or not root.isfinite().all():
        return None
    inverse = torch.cholesky_inverse(root)
    x = torch.einsum("nab,nb->na", inverse, g)
    d = g.shape[1]
    log_size = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    values = -0.5 * (g * x).sum(-1) + log_size - 0.5 * d * math.log(2 * math.pi)
    products = torch.einsum("nab,nkbc->nkac", inverse, M_i)
    pulled = torch.einsum("nkab,nb->nka", M_i, x)
    slope = (pulled * x.unsqueeze(1)).sum(-1) / 2 - (g_i * x.unsqueeze(1)).sum(-1)
    slope = slope + products.diagonal(dim1=-2, dim2=-1).sum(-1) / 2
    off = g_i - pulled
    information = torch.einsum("nka,nab,nlb->kl", off, inverse, off)
    information = information + 0.5 * torch.einsum("nkab,nlba->kl", products, products)
    return LocalScores(values, slope.sum(0), information)


def _refuse(local: Expansion, weights: Tensor, where: str) -> NoReturn:
    """Raises ValueError for weights at which some Hessian is not negative definite."""
    M = _combined(local.curvatures[:, :-1], local.curvatures[:, -1], weights)
    least = torch.linalg.eigvalsh(M)[:, 0]
    i = int(least.argmin())
    expected = "weights at which the Hessian of the return is negative definite everywhere"
    came = f"an eigenvalue of {-float(least[i]):.4g} for demonstration {i} at {weights.tolist()}"
    checks.refuse(where, expected, came, _ADVICE)

"""Demonstrations and their derivatives at some weights of a reward."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class ScoredDemonstrations(NamedTuple):
    """n demonstrations at some weights.

    Attributes:
        values: (n,), nats: the objective of each; for "matching" without the term log p(τ|s_0).
        scores: (n, k), nats per unit of a weight: its gradient.
        information: (k, k): minus its Hessian for potentials, else the Fisher information.
    """

    values: Tensor
    scores: Tensor
    information: Tensor

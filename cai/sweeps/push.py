"""One step forward through the dynamics at η: w ⊙ Wᵀ(π x/E), see ``one_step.py``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cai.numerics import logspace
from cai.numerics.matrices import Array
from cai.sweeps.one_step import SoftBackup


@dataclass
class ForwardSteps:
    """The factors that propagate a mass forward through some steps.

    Attributes:
        v: (n, S), nats, the values of the next steps.
        weights: (n, A, S), or (n, 1, S) if actions are summed with the successors: π/E, zero for
            rows computed in log space.
        policy: (n, A, S), π(a|s); None if actions are summed with the successors, or if the weights
            were kept.
        w: (n, S); None at η = 0.
        survival: (n, S) or (), the survival probability at η.
        alone: (n, R), which rows are computed in log space; None if none is.
    """

    v: Array
    weights: Array
    policy: Array | None = None
    w: Array | None = None
    survival: Array | None = None
    alone: Array | None = None

    def flow(self, x: Array, i: int) -> Array:
        """The mass (S,) of each state, distributed over the rows and divided by E: (R,)."""
        return (self.weights[i] * x).ravel()

    def flows(self, x: Array) -> Array:
        """As :meth:`flow`, of all steps, (n, S) -> (n, R)."""
        return (self.weights * x[:, None, :]).reshape(len(x), -1)

    def mass_alone(self, x: Array, i: int) -> Array:
        """The mass of each state on the rows computed in log space, (S,) -> (R,)."""
        assert self.alone is not None
        mass = x if self.policy is None else (self.policy[i] * x).ravel()
        return np.where(self.alone[i], mass, 0.0)


def forward_steps(
    step: SoftBackup, after: Array, q: Array, w: Array | None, E: Array | None, t: int = 0
) -> ForwardSteps:
    """The factors for the steps from t on with next values ``after``, from ``step.log_rows``."""
    policy, alone = None if step.joint else step.policy(q, t), None
    weights: Array = np.ones(()) if policy is None else policy.reshape(q.shape)
    if E is not None:
        alone = step.rows.underflowed(E) | ~step.rows.possible
        if alone.any():
            weights = np.where(alone, 0.0, weights / np.where(alone, 1.0, E))
        else:
            weights, alone = weights / E, None
    weights = weights.reshape(len(after), -1, after.shape[-1])
    return ForwardSteps(after, weights, policy, w, step.survival(after), alone)


def push(step: SoftBackup, x: Array, ahead: ForwardSteps, i: int) -> Array:
    """One step forward: the mass that arrives alive in each state, from the mass (S,) in each."""
    arrived = step.W.transposed_times(ahead.flow(x, i))
    if ahead.w is not None:
        arrived = arrived * ahead.w[i]
    if ahead.alone is not None and ahead.alone[i].any():
        arrived += push_alone(step, ahead.mass_alone(x, i), ahead.v[i])
    return arrived if ahead.survival is None else arrived * ahead.survival[i]


def push_alone(step: SoftBackup, mass: Array, v_next: Array) -> Array:
    """As :func:`push`, the rows with mass one by one, in log space."""
    arrived = torch.zeros(len(v_next), dtype=torch.float64)
    for rows in step.blocks(np.flatnonzero(mass)):
        log_p, x, index = step.alone(rows, v_next)
        flow = logspace.tilt(log_p, x, step.eta).exp() * torch.from_numpy(mass[rows]).unsqueeze(-1)
        arrived.index_add_(0, index.expand(flow.shape).flatten(), flow.flatten())
    return arrived.numpy()

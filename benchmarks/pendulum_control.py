"""Classical controllers of the pendulum's swing-up, as a yardstick for fitted policies.

Two controllers: energy shaping with a linear-quadratic regulator on top, tuned over its threshold
and its gain, and the greedy policy of value iteration on a grid, which no such controller beats.
Both know the dynamics and maximise the environment's reward alone, without entropy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from cai.program.trajectory import TrajectoryModel

_DT, _TORQUE, _SPEED = 0.05, 2.0, 8.0
_LIFT, _PUSH = 15.0, 3.0  # 1/s² a sine of the angle, and a N m

Controller = Callable[[int, Tensor], Tensor]
"""(t, states (n, 2)) -> torques (n, 1)."""


def returns(model: TrajectoryModel, control: Controller, s: Tensor) -> Tensor:
    """(n,): the return from each of some starts, (n, 2), in deterministic dynamics."""
    total = torch.zeros(len(s), dtype=torch.float64)
    assert model.horizon is not None
    for t in range(model.horizon):
        a = control(t, s)
        total += model.rewards(s, a)
        s = model.dynamics(s, a).mean
    return total


def best_on_top(model: TrajectoryModel, s: Tensor) -> Controller:
    """The energy-shaping controller whose gain and threshold do best from some starts."""
    choices = itertools.product((0.1, 0.2, 0.3, 0.5, 1.0, 3.0), (1.0, 2.0, 4.0, 8.0, 16.0, 32.0))
    controllers = [energy_shaping(gain, threshold) for gain, threshold in choices]
    return max(controllers, key=lambda control: returns(model, control, s).mean().item())


def energy_shaping(gain: float, threshold: float) -> Controller:
    """Pumps energy until it is that of the upright rest, and regulates where x'Px < threshold."""
    regulate, cost = _regulator()

    def control(t: int, s: Tensor) -> Tensor:
        x = torch.stack([_wrapped(s[:, 0]), s[:, 1]], -1)
        missing = _LIFT * (1 - s[:, 0].cos()) - s[:, 1] ** 2 / 2
        direction = torch.where(s[:, 1] == 0, 1.0, s[:, 1])
        near = torch.einsum("ni,ij,nj->n", x, cost, x) < threshold
        torque = torch.where(near, -x @ regulate, gain * missing * direction)
        return torque.clamp(-_TORQUE, _TORQUE).unsqueeze(-1)

    return control


def value_iteration(model: TrajectoryModel, angles: int = 240, speeds: int = 193) -> Controller:
    """Greedy with respect to values on a grid, which are interpolated between its points."""
    assert model.horizon is not None
    angle = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles) - math.pi
    speed = torch.linspace(-_SPEED, _SPEED, speeds, dtype=torch.float64)
    torques = torch.linspace(-_TORQUE, _TORQUE, 41, dtype=torch.float64)
    s = torch.cartesian_prod(angle, speed)
    r, where, weight = _outcomes(model, s, torques, angles, speeds)
    values = [torch.zeros(len(s), dtype=torch.float64)]
    for _ in range(model.horizon - 1):
        q = r + (values[-1][where] * weight).sum(0)
        values.append(q.amax(-1))
    values.reverse()  # values[t] is of step t + 1

    def control(t: int, s: Tensor) -> Tensor:
        r, where, weight = _outcomes(model, s, torques, angles, speeds)
        return torques[(r + (values[t][where] * weight).sum(0)).argmax(-1)].unsqueeze(-1)

    return control


def _regulator() -> tuple[Tensor, Tensor]:
    """Gain and cost matrix of the discrete Riccati equation around the upright rest."""
    A = np.array([[1 + _LIFT * _DT**2, _DT], [_LIFT * _DT, 1.0]])
    B = np.array([[_PUSH * _DT**2], [_PUSH * _DT]])
    P = scipy.linalg.solve_discrete_are(A, B, np.diag([1.0, 0.1]), np.array([[0.001]]))
    gain = np.linalg.solve(0.001 + B.T @ P @ B, B.T @ P @ A)[0]
    return torch.from_numpy(gain), torch.from_numpy(P)


def _outcomes(
    model: TrajectoryModel, s: Tensor, torques: Tensor, angles: int, speeds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, (n, A), and the four points around each next state with weights, (4, n, A)."""
    pair = s.unsqueeze(1).expand(-1, len(torques), -1)
    a = torques.view(1, -1, 1).expand(len(s), -1, -1)
    after = model.dynamics(pair, a).mean
    x = (after[..., 0] + math.pi) % (2 * math.pi) * (angles / (2 * math.pi))
    y = (after[..., 1] + _SPEED) * ((speeds - 1) / (2 * _SPEED))
    i, j = x.floor().long(), y.floor().long().clamp(max=speeds - 2)
    u, v = x - i, y - j
    where = [(i + di) % angles * speeds + j + dj for di in (0, 1) for dj in (0, 1)]
    weight = [(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v]
    return model.rewards(pair, a), torch.stack(where), torch.stack(weight)


def _wrapped(angle: Tensor) -> Tensor:
    return (angle + math.pi) % (2 * math.pi) - math.pi

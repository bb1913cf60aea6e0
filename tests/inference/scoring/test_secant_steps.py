"""Steps by gradients alone: on a quadratic function, with a wrong curvature, and off the domain."""

import pytest
import torch
from torch import Tensor

from cai.inference.scoring.secant_steps import secant_steps


def bowl(seed: int, k: int) -> tuple[Tensor, Tensor]:
    """A curvature (k, k) and the maximum (k,) of -(w - m)' C (w - m)/2."""
    rng = torch.Generator().manual_seed(seed)
    root = torch.randn(k, k, generator=rng, dtype=torch.float64)
    return root @ root.T + torch.eye(k), torch.randn(k, generator=rng, dtype=torch.float64)


def test_one_step_is_enough_with_the_right_curvature():
    curvature, maximum = bowl(0, 3)

    def slope(weights: Tensor) -> tuple[Tensor, Tensor]:
        off = weights - maximum
        return -(off @ curvature @ off) / 2, -curvature @ off

    start = torch.zeros(3, dtype=torch.float64)
    found = secant_steps(slope, start, *slope(start), torch.linalg.inv(curvature), 1e-10)
    torch.testing.assert_close(found.weights, maximum)
    assert found.evaluations == 1


@pytest.mark.parametrize("seed", range(5))
def test_curvature_is_learnt_on_the_way(seed):
    """On a quadratic function of k weights with a curvature that is off by a fifth or so."""
    curvature, maximum = bowl(seed, 4)
    off_by = torch.linspace(0.85, 1.2, 4, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(curvature)
    wrong = (vectors / (values * off_by)) @ vectors.T
    evaluated = []

    def slope(weights: Tensor) -> tuple[Tensor, Tensor]:
        evaluated.append(weights)
        off = weights - maximum
        return -(off @ curvature @ off) / 2, -curvature @ off

    def left(weights: Tensor) -> float:
        return float((weights - maximum) @ curvature @ (weights - maximum))

    start = torch.zeros(4, dtype=torch.float64)
    found = secant_steps(slope, start, *slope(start), wrong, 1e-10)
    fixed = start
    for _ in range(found.steps):  # with the wrong curvature all along
        fixed = fixed - wrong @ curvature @ (fixed - maximum)
    assert left(found.weights) < 1e-9
    assert left(found.weights) < left(fixed) / 10
    assert found.evaluations == len(evaluated) - 1 <= 6


def test_a_step_to_where_there_are_no_values_is_not_taken():
    def slope(weights: Tensor) -> tuple[Tensor, Tensor]:
        if float(weights) > 1:
            raise ValueError("there are no values")
        return weights.sum(), torch.ones(1, dtype=torch.float64)

    start, step = torch.zeros(1, dtype=torch.float64), torch.full((1, 1), 2.0, dtype=torch.float64)
    found = secant_steps(slope, start, *slope(start), step, 1e-10)
    assert (found.steps, found.evaluations) == (0, 1)
    assert torch.equal(found.weights, start)


def test_a_step_that_is_worse_is_not_taken():
    def slope(weights: Tensor) -> tuple[Tensor, Tensor]:
        return -weights.square().sum(), -2 * weights

    start, step = torch.ones(1, dtype=torch.float64), torch.full((1, 1), 1.1, dtype=torch.float64)
    found = secant_steps(slope, start, *slope(start), step, 1e-10)
    assert (found.steps, found.evaluations) == (0, 1)

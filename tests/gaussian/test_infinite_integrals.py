"""Linear-Gaussian integrals that are infinite, and such as only look so, by their units."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)
REFUSED = r"integral over the action of step \d is infinite|grows without limit in the action"


def random_dynamics(seed, n, m):
    rng = np.random.default_rng(seed)
    return {"A": rng.normal(size=(n, n)), "B": rng.normal(size=(n, m)), "noise": 0.5 * np.eye(n)}


def refused(call):
    with pytest.raises(ValueError, match=REFUSED) as error:
        call()
    assert "\n" not in str(error.value)


@given(seed=seeds, m=st.integers(2, 4))
def test_more_actions_than_states(seed, m):
    """An action that is not paid for counts through Ba only, and B has a null space."""
    model = models.linear_gaussian(
        **random_dynamics(seed, m - 1, m), horizon=2, Q=np.eye(m - 1), R=np.eye(m)
    )
    refused(lambda: inference.posterior(model, optimal=[False, True, False]))
    refused(lambda: inference.posterior(model, {"s_2": np.zeros(m - 1)}, [False, True, False]))


@given(seed=seeds, n=st.integers(1, 3))
def test_a_later_action_makes_up_for_an_earlier_one(seed, n):
    """Nothing is said of a_0, since a_1 can bring about any s_2; across several steps, too."""
    model = models.linear_gaussian(
        **random_dynamics(seed, n, n), horizon=4, Q=np.eye(n), R=0.1 * np.eye(n)
    )
    refused(lambda: inference.posterior(model, optimal=[False, False, True, True, True]))
    refused(lambda: inference.posterior(model, optimal=[False, False, False, True, False]))
    found = inference.posterior(model, optimal=[False, True, True, True, True])  # this is proper
    assert math.isfinite(found.log_evidence)
    # αH⁻¹ of H = B'(P⁻¹ + θW)⁻¹B, with α = θ = 1, W = ½ and P ≥ Q = 1: H ≥ B'B/1.5.
    widest = 1.5 / np.linalg.svd(model.B, compute_uv=False)[-1] ** 2
    assert torch.linalg.eigvalsh(found.policy.covariance[0]).max() <= widest * (1 + 1e-9)


@given(seed=seeds, eta=st.sampled_from([-1e-9, 0.0, 0.4, 1.0, 30.0]))
def test_values_where_actions_cost_nothing(seed, eta):
    """A null space of B, and a step in between that is free, and that a later one makes up for."""
    free = models.linear_gaussian(
        **random_dynamics(seed, 1, 2), horizon=2, Q=[[2.0]], Q_final=[[1.0]]
    )
    refused(lambda: inference.soft_values(free, eta))
    R = np.stack([np.eye(2)] * 4)
    R[1] = 0
    arguments = random_dynamics(seed, 2, 2) | {"horizon": 4, "Q_final": np.eye(2)}
    # What a_1 does costs B'PB, P ~ (A²)'A²: where B or A nearly loses a direction, that of it is
    # no more than rounding leaves, and is refused.
    assume(np.linalg.cond(arguments["B"]) * np.linalg.cond(arguments["A"] @ arguments["A"]) < 1e5)
    found = inference.soft_values(models.linear_gaussian(**arguments, R=R), eta)
    assert found.policy.covariance.isfinite().all()
    R[2] = 0  # a_2 brings about any s_3 for nothing, so that of a_1 nothing is said
    refused(lambda: inference.soft_values(models.linear_gaussian(**arguments, R=R), eta))


def test_plans_and_mirror_descent_refuse_alike():
    model = models.linear_gaussian([[1.3]], [[0.7, 0.1]], horizon=2, Q=[[2.0]], Q_final=[[1.0]])
    with pytest.raises(ValueError, match="reward: expected one that falls off with the size"):
        inference.gaussian_plan(model)
    policy = cai.LinearGaussianPolicy(model)
    with pytest.raises(ValueError, match=r'estimator "mirror": expected rewards that fall'):
        inference.fit(model, policy, estimator="mirror", steps=1, progress=False)


# What is proper, in units of 1e-8 and 1e8

UNITS = [
    ([1e8, 1e8], [1.0, 1.0], 1.0),
    ([1e-8, 1e-8], [1e8, 1e8], 1e8),
    ([1e8, 1.0], [1e-8, 1e8], 1e-8),
    ([1.0, 1e-8], [1e8, 1e-8], 1e8),
]


def in_units(u, v, r, T, flat):
    """The same problem with states, actions and rewards counted in other units."""
    U, V = np.diag(np.array(u, float)), np.diag(np.array(v, float))
    over, under = np.linalg.inv(U), np.linalg.inv(V)
    W = U @ np.array([[0.01, 0.002], [0.002, 0.02]]) @ U
    prior = None if flat else dist.MultivariateNormal(torch.zeros(2).double(), torch.tensor(V @ V))
    return models.linear_gaussian(
        U @ np.array([[1.0, 0.1], [0.0, 1.0]]) @ over,
        U @ np.array([[0.005, 0.0], [0.1, 0.3]]) @ under,
        horizon=T,
        noise=W,
        Q=r * over @ np.diag([1.0, 0.2]) @ over,
        R=r * under @ np.array([[1.0, 0.1], [0.1, 2.0]]) @ under,
        initial_mean=U @ np.array([1.0, -1.0]),
        initial_covariance=0.3 * W,
        action_prior=prior,
        temperature=r,
    )


@pytest.mark.parametrize(("u", "v", "r"), UNITS)
@pytest.mark.parametrize("eta", [-0.01, 0.0, 1.0])
@pytest.mark.parametrize("flat", [True, False])
def test_units_do_not_matter(u, v, r, eta, flat):
    """A density over actions is counted per unit of action: its logarithm is shifted."""
    shift = np.log(v).sum() if flat else 0.0
    for T in (5, None):
        plain, model = (in_units(*x, T, flat) for x in (([1, 1], [1, 1], 1.0), (u, v, r)))
        one, other = inference.soft_values(plain, eta), inference.soft_values(model, eta)
        if T is None:
            assert other.growth / r == pytest.approx(one.growth + shift, rel=1e-9)
        else:
            assert other.bound == pytest.approx(one.bound + T * shift, rel=1e-9)
        gains = torch.tensor(v).unsqueeze(1) * one.gains / torch.tensor(u)
        torch.testing.assert_close(other.gains, gains, rtol=1e-7, atol=0)
        spread = torch.tensor(v) * one.policy.covariance * torch.tensor(v).unsqueeze(1)
        torch.testing.assert_close(other.policy.covariance, spread, rtol=1e-7, atol=0)


@pytest.mark.parametrize(("u", "v", "r"), UNITS)
@pytest.mark.parametrize("optimal", [None, [True, False, True, False, False, True]])
def test_units_do_not_matter_where_more_is_observed(u, v, r, optimal):
    bounds = []
    for w in (([1.0, 1.0], [1.0, 1.0], 1.0), (u, v, r)):
        seen = {"s_5": np.array([0.3, 0.2]) * w[0], "a_1": np.array([0.1, 0.1]) * w[1]}
        found = inference.posterior(in_units(*w, 5, False), seen, optimal)
        bounds.append(found.bound + np.log(w[0]).sum() + np.log(w[1]).sum())
    assert bounds[1] == pytest.approx(bounds[0], rel=1e-9)


@pytest.mark.parametrize("sharp", [1e5, 1e8, 1e10, 1e18])
def test_sharp_rewards_of_one_combination(sharp):
    """What the prior and the noise say of other directions is told, or said to be lost."""
    model = models.linear_gaussian(
        0.5 * np.eye(2),
        [[1.0, 0.5], [0.3, 1.0]],
        horizon=1,
        noise=np.eye(2),
        Q_final=sharp * np.array([[1.0, 2.0], [2.0, 4.0]]),
        initial_covariance=np.eye(2),
        action_prior=dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()),
    )
    if sharp == 1e18:
        with pytest.raises(ValueError, match="reward: expected one whose curvature keeps"):
            inference.posterior(model, {})
        return
    found = inference.posterior(model, {})
    # x = s_1 + 2 s_1' is N(0, σ²), and log E exp(-½ sharp x²) = -½ log(1 + sharp σ²).
    c, B = np.array([1.0, 2.0]), model.B.numpy()
    variance = c @ (1.25 * np.eye(2) + B @ B.T) @ c
    # The curvature of the other directions is that of the sharp one times 1/sharp.
    right = -0.5 * math.log1p(sharp * variance)
    assert found.bound == pytest.approx(right, abs=1e-12 + 1e-15 * sharp)


def test_variances_of_any_size_are_noise():
    """Which direction has none is not decided by the largest variance."""
    for small in (1e-6, 1e-12, 1e-18, 1e-30):
        covariance = torch.diag(torch.tensor([1.0, small, 0.0], dtype=torch.float64))
        d = cai.Gaussian(torch.zeros(3).double(), covariance).distribution()
        x = torch.tensor([1.0, small**0.5, 0.0], dtype=torch.float64)
        expected = -1 - math.log(2 * math.pi) - 0.5 * math.log(small)
        assert d.log_prob(x).item() == pytest.approx(expected, rel=1e-12)
        policy = cai.LinearGaussianPolicy.from_matrices(
            torch.zeros(2, 1), torch.zeros(2), covariance[:2, :2]
        )
        assert policy.log_scales.tolist() == pytest.approx([0, 0.5 * math.log(small)])

"""Linear-Gaussian models without an end: which root of the Riccati equation their value is.

It is the limit of long finite horizons. Long horizons are run in coordinates in which what no
reward sees is exactly zero, so that rounding does not grow; the models are in mixed coordinates.
"""

import dataclasses
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cai import inference, models
from cai.gaussian import riccati, tilted_noise

seeds = st.integers(0, 10**6)


def scalar(A, B=1.0, horizon=None, W=0.1, **changes):
    arguments = {"noise": [[W]], "R": [[1.0]], "initial_mean": [1.0]}
    arguments["initial_covariance"] = [[0.5]]
    return models.linear_gaussian([[A]], [[B]], horizon=horizon, **(arguments | changes))


def value_after(model, eta, steps):
    """P and p after so many steps from zero, one after another; None where a step has no value."""
    problem, theta = riccati.StepArrays.of(model), riccati.price(model, eta)
    step = problem.over(1)[0]
    value = np.zeros_like(step[0]), np.zeros(len(step[0])), 0.0
    try:
        for _ in range(steps):
            value = riccati.earlier(problem, step, value, theta, "of a step")[0]
            if not np.abs(value[0]).max() < 1e50:
                return None
        start = tilted_noise.spectrum(value, riccati.model_start(model)[1], theta)
        tilted_noise.soften(value, start, theta, tilted_noise.START)
    except tilted_noise.Breakdown:
        return None
    return value[:2]


# What grows and costs nothing


@pytest.mark.parametrize("A", [1.0, -1.0, 1.05, 2.0, -7.0])
@pytest.mark.parametrize(("eta", "discount"), [(0.0, 0.9), (0.0, 1.0), (1.0, 1.0), (-0.3, 1.0)])
def test_without_rewards_there_is_no_value(A, eta, discount):
    """log p(O) = 0 for every horizon, and the best policy is the prior."""
    prior = dist.MultivariateNormal(torch.zeros(1).double(), torch.eye(1).double())
    model = scalar(A, R=[[0.0]], action_prior=prior, discount=discount)
    found = inference.soft_values(model, eta)
    assert found.V.P.item() == 0
    assert found.gains.item() == 0
    assert found.policy.covariance.item() == pytest.approx(1)
    assert found.imagined_return == pytest.approx(0, abs=1e-12)
    if discount < 1:
        assert found.bound == pytest.approx(0, abs=1e-12)
    else:
        assert found.growth == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_both_roots_in_closed_form(discount):
    """Without a cost of states P = 0, or γA²R/(R + γB²P) = 1: P = (γA² - 1)R/(γB²)."""
    model = scalar(2.0, B=0.5, R=[[3.0]], discount=discount)
    assert inference.soft_values(model).V.P.item() == 0
    P = (4 * discount - 1) * 3 / (discount * 0.25)
    found = inference.stabilising_values(model)
    assert found.V.P.item() == pytest.approx(P, rel=1e-12)
    gain = discount * 0.5 * P * 2 / (3 + discount * 0.25 * P)
    assert found.gains.item() == pytest.approx(gain, rel=1e-12)
    assert math.sqrt(discount) * abs(2 - 0.5 * gain) < 1
    # With any cost at all of the state the two are one, and the cost has a limit P ≠ 0 again.
    tiny = dataclasses.replace(model, Q=torch.tensor([[1e-9]]))
    one, other = inference.soft_values(tiny), inference.stabilising_values(tiny)
    assert one.V.P.item() == pytest.approx(P, rel=1e-6)
    torch.testing.assert_close(one.V.P, other.V.P)


def mixed(seed, discount=1.0):
    """Some states cost something, and others, which may run away, do not; units are mixed.

    Returns:
        A model in coordinates in which this can be seen, one in others, and M between them.
    """
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 7), rng.integers(1, 4)
    hidden = rng.integers(0, n + 1)
    A, B, C = rng.normal(size=(n, n)), rng.normal(size=(n, m)), rng.normal(size=(n, n))
    A *= rng.choice([0.5, 1.0, 1.5]) / math.sqrt(n)
    q, L = rng.normal(size=n), 0.3 * rng.normal(size=(n, rng.integers(1, n + 1)))
    A[: n - hidden, n - hidden :], C[:, n - hidden :], q[n - hidden :] = 0, 0, 0
    root, D = rng.normal(size=(m, m)), rng.normal(size=(n, m))
    turn, _ = np.linalg.qr(rng.normal(size=(n, n)))
    M = 10 ** rng.uniform(-3, 3, size=(n, 1)) * turn

    def model(M):
        back = np.linalg.inv(M)
        W, S = M @ L @ L.T @ M.T, 0.1 * M @ M.T
        return models.linear_gaussian(
            M @ A @ back,
            M @ B,
            horizon=None,
            noise=0.5 * (W + W.T),
            Q=back.T @ C.T @ C @ back,
            N=back.T @ C.T @ D,
            R=D.T @ D + root @ root.T + 0.3 * np.eye(m),
            q=back.T @ q,
            initial_covariance=0.5 * (S + S.T),
            discount=discount,
        )

    return model(np.eye(n)), model(M), M


@given(seed=seeds, eta=st.sampled_from([0.0, 0.3, 1.0, 20.0]), discount=st.sampled_from([1.0, 0.9]))
def test_the_limit_of_long_horizons(seed, eta, discount):
    """Whatever is reached, seen or neither; where there is no limit, that is said."""
    eta = eta if discount == 1 else 0.0
    plain, model, M = mixed(seed, discount)
    near, far = (value_after(plain, eta, steps) for steps in (200, 400))
    # The linear part forgets the end at the rate of the loop, the quadratic one at twice that.
    settled = far is not None and all(
        np.abs(after - before).max() <= 1e-8 * (k + np.abs(after).max())
        for before, after, k in zip(near, far, (0, 1), strict=True)
    )
    if not settled:
        return
    found = inference.soft_values(model, eta)
    P, p = M.T @ found.V.P.numpy() @ M, M.T @ found.V.p.numpy()
    np.testing.assert_allclose(P, far[0], rtol=0, atol=1e-6 * np.abs(far[0]).max())
    np.testing.assert_allclose(p, far[1], rtol=0, atol=1e-6 * (1 + np.abs(far[1]).max()))


@given(seed=seeds)
def test_the_stabilising_root_is_stable_and_never_better(seed):
    """The limit is the least of all roots P ≥ 0."""
    plain, _, _ = mixed(seed)
    try:
        limit, stable = inference.soft_values(plain), inference.stabilising_values(plain)
    except ValueError:
        return
    loop = plain.A - plain.B @ stable.gains
    assert np.abs(np.linalg.eigvals(loop.numpy())).max() < 1
    more = stable.V.P - limit.V.P
    assert torch.linalg.eigvalsh(more).min() >= -1e-7 * (1 + stable.V.P.abs().max())


@pytest.mark.parametrize(
    ("A", "B", "message"),
    [
        ([[1.0]], [[0.0]], "costs grow without limit"),
        ([[0.6, -0.8], [0.8, 0.6]], [[0.0], [0.0]], "costs grow without limit"),  # turns for ever
        ([[0.75, 0.25], [0.25, 0.75]], [[1.0], [-1.0]], "costs grow without limit"),
    ],
)
def test_what_costs_and_cannot_be_steered(A, B, message):
    model = models.linear_gaussian(A, B, horizon=None, Q=np.eye(len(A)), R=[[1.0]])
    with pytest.raises(ValueError, match=message):
        inference.soft_values(model)
    with pytest.raises(ValueError, match="expected one with a stabilising solution"):
        inference.stabilising_values(model)
    noisy = dataclasses.replace(model, noise=torch.eye(len(A)))
    assert inference.soft_values(noisy, 0.5).V.P.isfinite().all()  # luck steers it


def test_a_marginal_state_that_costs_nothing():
    """It walks at random for ever; a slope along it grows without end, unless it is discounted."""
    arguments = {"A": [[1.0, 0.0], [0.0, 0.5]], "B": [[1.0], [1.0]], "Q": np.diag([0.0, 1.0])}
    arguments |= {"R": [[1.0]], "noise": 0.1 * np.eye(2), "horizon": None}
    found = inference.soft_values(models.linear_gaussian(**arguments))
    assert found.V.P[0].abs().max() == 0
    assert found.gains[0, 0] == 0
    with pytest.raises(
        ValueError, match=r"linear part of the value grows .* with an infinite horizon"
    ):
        inference.soft_values(models.linear_gaussian(**arguments, q=[1.0, 0.0]))
    found = inference.soft_values(models.linear_gaussian(**arguments, q=[1.0, 0.0], discount=0.75))
    assert found.V.p[0].item() == pytest.approx(1 / (1 - 0.75))


def test_free_actions_have_no_limit():
    """The last action costs nothing, at every horizon; the stabilising root has no last one."""
    model = scalar(2.0, R=[[0.0]], Q=[[1.0]])
    with pytest.raises(ValueError, match="grows without limit in the action of the last step"):
        inference.soft_values(model)
    assert inference.stabilising_values(model).V.P.item() == pytest.approx(1)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_returns_of_what_runs_away(discount):
    """r = ρa - ½a²: every step pays ½ρ² - ½ on average, wherever the state is."""
    model = scalar(1.5, rho=[0.7], discount=discount)
    found = inference.soft_values(model)
    step = 0.5 * 0.7**2 - 0.5
    expected = step if discount == 1 else step / (1 - discount)
    assert found.imagined_return == pytest.approx(expected, rel=1e-12)
    with pytest.raises(AttributeError, match="the chain is unstable"):
        _ = found.states


# Below zero optimism


def test_beyond_the_breakdown_there_is_no_other_root():
    """P = 1 + A²P/(1 + GP), G = B² + θ, and 1 + θP > 0. Rewards are ≤ 0, so values are, too."""
    model = scalar(1.2, B=0.2, W=1.0, Q=[[1.0]], initial_covariance=[[0.0]])

    def root(G):
        b = 1.2**2 - 1 + G
        return (b + math.sqrt(b**2 + 4 * G)) / (2 * G)

    lowest, _ = inference.optimism_range(model)
    assert 1 + lowest * root(0.04 + lowest) == pytest.approx(0, abs=1e-7)  # -1/37
    assert lowest == pytest.approx(-1 / 37, rel=1e-8)
    for part in (0.5, 0.99, 0.999999):
        found = inference.soft_values(model, part * lowest)
        assert found.V.P.item() == pytest.approx(root(0.04 + part * lowest), rel=1e-9)
    for eta in (lowest * (1 + 1e-6), -0.0271, -0.03, -0.054, -0.3, -5.0, -math.inf):
        with pytest.raises(ValueError, match=r"most negative η that exists is -0\.027027"):
            inference.soft_values(model, eta)


@pytest.mark.parametrize("n", [1, 3, 6])
@pytest.mark.parametrize("convex", [True, False])
def test_the_edge_of_existence_by_long_recursions(n, convex):
    """What exists just inside of it, over thousands of steps, does not just outside."""
    rng = np.random.default_rng(n)
    for scale in (0.6,) if n == 6 else (0.6, 1.3):
        A, B = scale * rng.normal(size=(n, n)) / math.sqrt(n), rng.normal(size=(n, 2))
        L, C = rng.normal(size=(2, n, n))
        Q = C @ C.T - (0.0 if convex else 0.02) * np.eye(n)
        model = models.linear_gaussian(A, B, horizon=None, noise=L @ L.T, Q=Q, R=np.eye(2))
        lowest, _ = inference.optimism_range(model)
        assert lowest < 0
        assert value_after(model, lowest * (1 - 1e-4), 1000) is not None
        assert value_after(model, lowest * (1 + 1e-4), 1000) is None
        for beyond in (1.001, 1.5, 4.0, 30.0):
            with pytest.raises(ValueError, match="most negative η that exists is"):
                inference.soft_values(model, lowest * beyond)
        for inside in (0.2, 0.9):
            found = inference.soft_values(model, lowest * inside)
            P, _ = value_after(model, lowest * inside, 1000)
            np.testing.assert_allclose(found.V.P, P, rtol=1e-7, atol=1e-9)


def test_rewards_that_grow():
    """A convex reward, Q = -.1: P = -.1 + P/4/(1 + P), until luck or action is worth any price."""
    model = scalar(0.5, Q=[[-0.1]], W=0.0, initial_covariance=[[0.0]])
    P = inference.soft_values(model).V.P.item()
    assert abs(P - (-0.1 + 0.25 * P / (1 + P))) < 1e-14
    assert abs(P - value_after(model, 0.0, 200)[0].item()) < 1e-14
    with pytest.raises(ValueError, match=r"value is \+∞"):
        inference.soft_values(dataclasses.replace(model, Q=torch.tensor([[-0.3]])))
    with pytest.raises(ValueError, match=r"rewards grow without limit"):
        inference.soft_values(scalar(1.1, B=0.0, Q=[[-0.1]], W=0.0))


def test_optimism_has_no_range_with_a_discount():
    with pytest.raises(ValueError, match="discount: expected 1, where optimism has a range, got 0"):
        inference.optimism_range(scalar(0.5, Q=[[1.0]], discount=0.9))


@pytest.mark.parametrize(
    ("model", "eta", "message"),
    [
        (scalar(0.5, horizon=3), 0.0, r"infinite horizon, got LinearGaussian with a horizon of 3"),
        (models.ledge(), 0.0, r"linear-Gaussian one .* got TrajectoryModel"),
        (scalar(0.5, Q=[[1.0]]), math.inf, "no root is stabilising|infinite optimism"),
        (scalar(0.5, Q=[[1.0]]), -40.0, "expected one with a stabilising solution at η = -40"),
        (scalar(0.5, discount=0.9), 1.0, "discount: expected 1 at optimism 1"),
    ],
)
def test_what_has_no_stabilising_root(model, eta, message):
    with pytest.raises(ValueError, match=message):
        inference.stabilising_values(model, eta)

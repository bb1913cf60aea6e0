"""Linear-Gaussian values by their definition: of actions with a discount, and of endless luck."""

import math

import numpy as np
import pytest
import torch

import cai
from cai import inference, models
from cai.gaussian.long_run import long_run


def drifting(**changes):
    """Two numbers that drift and shake, pushed in one of them."""
    arguments = {
        "A": [[0.9, 0.3], [-0.2, 0.8]],
        "B": [[0.5], [1.0]],
        "drift": [0.1, -0.2],
        "noise": [[0.3, 0.1], [0.1, 0.2]],
        "Q": np.eye(2),
        "R": [[0.7]],
        "q": [0.4, -0.1],
        "Q_final": [[2.0, 0.5], [0.5, 1.0]],
        "q_final": [0.2, 0.3],
        "horizon": 3,
        "initial_mean": [1.0, -1.0],
        "initial_covariance": 0.2 * np.eye(2),
    }
    return models.linear_gaussian(**(arguments | changes))


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_an_action_is_worth_its_reward_and_what_follows_if_alive(discount):
    """Q_t(s,a) = r(s,a) + γ E[V_{t+1}(s')], V_{t+1} at the mean less what the noise costs."""
    model = drifting(discount=discount)
    found = inference.soft_values(model)
    s, a = torch.as_tensor(np.array([0.7, -1.1])), torch.as_tensor(np.array([0.4]))
    ahead = model.A @ s + model.B @ a + model.drift
    for t in range(3):
        after = found.V(t + 1, ahead) - 0.5 * (found.V.P[t + 1] @ model.noise).trace()
        paid = -0.5 * (s @ s + 0.7 * a @ a) + 0.4 * s[0] - 0.1 * s[1]
        assert found.Q(t, s, a).item() == pytest.approx((paid + discount * after).item(), abs=1e-12)


@pytest.mark.parametrize("eta", [-math.inf, math.inf])
def test_a_reward_without_a_limit_is_had_or_lost_without_one(eta):
    """At infinite |η| luck costs nothing, and a linear reward goes on for ever with it."""
    model = drifting(Q=np.zeros((2, 2)), Q_final=np.zeros((2, 2)))
    sign = r"\+" if eta > 0 else "-"
    with pytest.raises(ValueError, match=f"optimism: at η = {eta:g} the value is {sign}∞"):
        inference.soft_values(model, eta)
    quiet = drifting(
        Q=np.zeros((2, 2)),
        Q_final=np.zeros((2, 2)),
        noise=np.zeros((2, 2)),
        initial_covariance=np.zeros((2, 2)),
    )
    still = inference.soft_values(quiet).bound
    assert inference.soft_values(quiet, eta).bound == pytest.approx(still, abs=1e-12)


def test_one_number_that_runs_away_leaves_no_long_run():
    """A spectral radius is the largest: what holds still beside it does not count."""
    policy = cai.LinearGaussianPolicy.from_matrices(
        *(torch.zeros(shape, dtype=torch.float64) for shape in ((1, 2), (1,))),
        torch.eye(1, dtype=torch.float64),
    )
    for fast, runs in ((0.9, False), (1.1, True)):
        A, B = torch.diag(torch.tensor([fast, 0.5]).double()), torch.ones(2, 1).double()
        dynamics = cai.LinearMap(A, B, torch.zeros(2).double(), torch.eye(2).double())
        if runs:
            with pytest.raises(
                AttributeError, match=r"the chain is unstable \(spectral radius 1.1"
            ):
                long_run(dynamics, policy)
        else:
            states, _ = long_run(dynamics, policy)
            # each by itself: (1 + 1)/(1 - a²), noise of its own and of the action
            slow = 2 / (1 - 0.5**2)
            assert states.covariance[1, 1].item() == pytest.approx(slow, rel=1e-12)

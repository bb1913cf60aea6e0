"""Algorithm 1 of Ziebart et al. (2008) as a reference, and the ways in which it is got wrong.

Its backward pass has no action prior, which with as many actions everywhere is a constant, and its
forward pass follows the true dynamics, so that on deterministic dynamics its expected counts are
those of p(τ|O).
"""

import numpy as np
import pytest
import torch
from test_fit_reward import objective

import cai
from cai import inference, models

S, A, T = 6, 3, 7


def deterministic(seed):
    """Successors (S, A) on a connected graph, rewards of states, and a distribution of starts."""
    rng = np.random.default_rng(seed)
    after = rng.integers(S, size=(S, A))
    after[:, 0] = (np.arange(S) + 1) % S  # every state can be reached
    start = rng.random(S)
    return after, rng.normal(size=S), start / start.sum()


def algorithm_1(after, reward, start, steps, *, fault=None):
    """Expected visits of states in steps 0 … steps - 1, and what is left in the last one.

    Steps 1 to 3 are the backward pass over partition functions, step 4 the probability of actions,
    step 5 the forward pass, step 6 the sum.
    """
    S, A = after.shape
    local = []
    Z_s = np.ones(S)
    for _ in range(steps):
        Z_a = np.exp(reward)[:, None] * Z_s[after]
        Z_s = Z_a.max(1) if fault == "hard values" else Z_a.sum(1)
        local.insert(0, Z_a / Z_a.sum(1, keepdims=True))
    D = np.zeros((steps + 1, S))
    D[0] = start
    if fault == "states outside, time inside":  # reads what has not been computed yet
        for i in range(S):
            for t in range(steps):
                for a in range(A):
                    D[t + 1, after[i, a]] += D[t, i] * local[t][i, a]
        return D[:-1].sum(0), D[-1]
    for t in range(steps):
        for i in range(S):
            for a in range(A):
                k = after[i, a]
                if fault == "step 5 as printed":  # Σ_k D_k P(a|s_i), over successors of s_i
                    D[t + 1, i] += D[t, k] * local[t][i, a]
                else:
                    D[t + 1, k] += D[t, i] * local[t][i, a]
    visits = D[:-1].sum(0)
    return (visits + D[-1] if fault == "the last state counts" else visits), D[-1]


def ours(after, reward, start):
    """The expected visits of states before the last one, by the sensitivities of values."""
    P = torch.from_numpy(np.eye(S)[after])
    model = models.tabular(P, torch.zeros(S, A), horizon=T)
    indicators = {str(i): torch.eye(S, dtype=torch.float64)[i].unsqueeze(1) for i in range(S)}
    linear, table = cai.LinearReward(indicators), cai.tabulate(model)
    found = torch.zeros(S, dtype=torch.float64)
    for i, share in enumerate(start):
        path = [i]
        for _ in range(T):
            path.append(int(after[path[-1], 0]))
        seen = cai.Demonstrations.from_paths([path], [[0] * T])
        score = objective(table, linear, seen, "paths", 1.0)
        found += share * score.expected_features(torch.from_numpy(reward))
    return found.numpy()


@pytest.mark.parametrize("seed", range(3))
def test_expected_counts_are_those_of_algorithm_1(seed):
    after, reward, start = deterministic(seed)
    visits, last = algorithm_1(after, reward, start, T)
    np.testing.assert_allclose(ours(after, reward, start), visits, rtol=1e-12)
    assert visits.sum() == pytest.approx(T)
    assert last.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("fault", "keeps_mass"),
    [
        ("step 5 as printed", False),
        ("states outside, time inside", False),
        ("hard values", True),
        ("the last state counts", True),
    ],
)
def test_each_known_fault_is_seen(fault, keeps_mass):
    """The misprint, and what public implementations do: two lose mass, all have other counts."""
    after, reward, start = deterministic(0)
    visits, last = algorithm_1(after, reward, start, T, fault=fault)
    assert np.abs(ours(after, reward, start) - visits).max() > 0.05
    assert (abs(last.sum() - 1) < 1e-12) == keeps_mass


def test_values_of_the_last_state_must_fit_its_count():
    """A count of the last state has a gradient only if its reward is part of the values, too."""
    after, reward, start = deterministic(1)
    counted, _ = algorithm_1(after, reward, start, T, fault="the last state counts")

    def log_z(r, final):
        v = final
        for _ in range(T):
            q = r[:, None] + v[after]
            v = np.log(np.exp(q).sum(1))
        return start @ v

    def slope(i, paid_last):
        step = 1e-5 * np.eye(S)[i]
        ends = [log_z(reward + x, (reward + x) * paid_last) for x in (step, -step)]
        return (ends[0] - ends[1]) / 2e-5

    slopes = np.array([[slope(i, paid_last) for i in range(S)] for paid_last in (0.0, 1.0)])
    visits, _ = algorithm_1(after, reward, start, T)
    np.testing.assert_allclose(slopes[0], visits, rtol=1e-6)
    assert np.abs(slopes[0] - counted).max() > 0.05


def test_sweeps_of_an_absorbing_problem_approach_the_stationary_policy_like_the_radius():
    """Z is one in the goal, again in each sweep; N sweeps leave an error of about ρ^N."""
    after, _, _ = deterministic(2)
    after[-1] = S - 1  # the goal
    reward = torch.full((S, A), -0.02, dtype=torch.float64)
    reward[-1] = 0.0
    P = np.eye(S)[after]
    model = models.tabular(torch.from_numpy(P), reward, horizon=None)
    exact = inference.soft_values(model, optimism=1.0)
    M = np.exp(-0.02) * P[:-1, :, :-1].mean(1)
    rho = np.abs(np.linalg.eigvals(M)).max()

    def policy(sweeps, reset):
        Z = np.eye(S)[-1]
        for _ in range(sweeps):
            Z_a = np.exp(reward.numpy()) / A * Z[after]
            Z = Z_a.sum(1)
            Z[-1] = 1.0 if reset else 0.0
        return (Z_a / Z_a.sum(1, keepdims=True))[:-1]

    expected = exact.policy.log_probs.exp().numpy()[:-1]
    errors = [np.abs(policy(n, True) - expected).max() for n in (60, 90)]
    assert errors[1] / errors[0] == pytest.approx(rho**30, rel=0.2)
    with np.errstate(invalid="ignore"):  # some states cannot arrive after just 60 steps
        assert np.nanmax(np.abs(policy(60, False) - expected)) > 0.05

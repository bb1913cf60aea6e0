"""Simulation-based calibration: the truth is anywhere in the posterior, equally often.

Talts, Betancourt, Simpson, Vehtari and Gelman (2018): for weights drawn from the prior and
demonstrations drawn with them, the rank of the weights among draws of the posterior is uniform.
"""

import numpy as np
import torch
from scipy.stats import chisquare, kstest

import cai
from cai import inference, models

DATA_SETS = 200
WALK = np.eye(3)[[[1, 2], [2, 0], [0, 1]]]  # where two actions lead, for sure


def test_the_ranks_of_weights_are_uniform():
    """Three states, two actions, two steps, two weights."""
    rng = np.random.default_rng(0)
    table = cai.tabulate(models.tabular(WALK, np.zeros((3, 2)), horizon=2))
    f = torch.from_numpy(rng.normal(size=(2, 3, 2)))
    reward = cai.LinearReward({"f": f[0], "g": f[1]})
    features = reward.on(table)
    prior = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    ranks = []
    for i in range(DATA_SETS):
        truth = torch.from_numpy(rng.normal(size=2))
        policy = inference.soft_values(features.rewards(table, truth)).policy
        seen = walked(policy, 12, rng)
        found = inference.reward_posterior(
            table, seen, reward, prior, samples=100, seed=i, progress=False
        )
        share = found.log_weights.softmax(0)
        ranks.append([float(share[found.draws[:, j] < truth[j]].sum()) for j in range(2)])
    for each in np.array(ranks).T:
        assert kstest(each, "uniform").pvalue > 0.01
        counts, _ = np.histogram(each, bins=8, range=(0, 1 + 1e-9))
        assert chisquare(counts).pvalue > 0.01


def walked(policy, n, rng):
    """n walks of two actions from random states."""
    chance = [policy(t, torch.arange(3)).probs.detach().numpy() for t in range(2)]
    states, actions = rng.integers(3, size=(n, 1)), np.zeros((n, 0), int)
    for t in range(2):
        s = states[:, -1]
        a = (rng.random(n) > chance[t][s, 0]).astype(int)
        actions = np.concatenate([actions, a[:, None]], 1)
        states = np.concatenate([states, WALK[s, a].argmax(-1)[:, None]], 1)
    return cai.Demonstrations.from_paths(states, actions)


def test_the_ranks_of_demonstrators_are_uniform():
    """Eight data sets of twenty agents, each with a weight of its own."""
    rng = np.random.default_rng(1)
    pays = np.array([0.0, 1.0, -0.5])
    table = cai.tabulate(models.tabular(np.ones((1, 3, 1)), np.zeros((1, 3)), horizon=1))
    reward = cai.LinearReward({"pays": torch.from_numpy(pays).unsqueeze(0)})
    ranks = []
    for _ in range(8):
        truth = 0.5 + 0.8 * rng.normal(size=20)
        chance = np.exp(truth[:, None] * pays)
        chance /= chance.sum(1, keepdims=True)
        chosen = np.array([rng.choice(3, size=30, p=p) for p in chance]).reshape(-1, 1)
        who = np.repeat(np.arange(20), 30).tolist()
        seen = cai.Demonstrations.from_paths(np.zeros((600, 2), int), chosen, groups=who)
        found = inference.reward_posterior(table, seen, reward, groups=True, progress=False)
        away = torch.from_numpy(truth) - found.group_weights[:, 0]
        z = away / found.group_covariances[:, 0, 0].sqrt()
        ranks += torch.special.ndtr(z).tolist()
    assert kstest(ranks, "uniform").pvalue > 0.01
    counts, _ = np.histogram(ranks, bins=8, range=(0, 1))
    assert chisquare(counts).pvalue > 0.01

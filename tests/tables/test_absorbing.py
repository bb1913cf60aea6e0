"""Absorbing states, against every transition one by one."""

import numpy as np
import pytest
import torch

import cai
from cai import models
from cai.tables.absorbing import absorbing


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("successors", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_state_is_absorbing_if_no_allowed_action_leaves_it(seed, successors, by_step):
    rng = np.random.default_rng(seed)
    T, S, A, K = 3, 6, 2, 2
    heads = rng.integers(S, size=(S, A, K))
    heads[: S // 2] = np.arange(S // 2)[:, None, None]  # these stay, but for one in some steps
    heads[..., 1] = (heads[..., 0] + 1) % S
    p = np.zeros((T, S, A, K))
    p[..., 0] = rng.choice([0.5, 1.0], size=(T, S, A))
    p[:, : S // 2, :, 0] = 1.0
    p[1, 0, 0, 0] = 0.5
    p[..., 1] = 1 - p[..., 0]
    p = p if by_step else p[0]
    prior = np.full((S, A), 0.5)
    prior[1] = 0.0, 1.0
    options = {"horizon": T, "action_prior": prior}
    if successors:
        model = models.tabular(p, np.zeros((S, A)), successors=heads, **options)
    else:
        dense = np.zeros((*p.shape[:-1], S))
        for k in range(K):
            np.add.at(dense, (..., *np.indices((S, A)), heads[..., k]), p[..., k])
        model = models.tabular(dense, np.zeros((S, A)), **options)
    steps = p if by_step else p[None]
    expected = [
        not any(
            prior[s, a] > 0 and steps[t, s, a, k] > 0 and heads[s, a, k] != s
            for t in range(len(steps))
            for a in range(A)
            for k in range(K)
        )
        for s in range(S)
    ]
    table = cai.tabulate(model)
    assert absorbing(table).tolist() == expected
    assert any(expected)
    assert not all(expected)


def test_what_is_forbidden_leads_nowhere():
    P = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    model = models.tabular(P, torch.zeros(2, 2), horizon=2, action_prior=[[0.0, 1.0], [0.5, 0.5]])
    assert absorbing(cai.tabulate(model)).tolist() == [True, True]

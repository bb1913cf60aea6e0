"""Path consistency: zero at the optimum, fond of calm where squares are differentiated whole."""

import statistics

import numpy as np
import pytest
import torch
from torch import nn

import cai
from cai import inference, models
from cai.inference.learning.path_consistency import PathConsistency
from cai.inference.learning.stepped import Stepped
from cai.stepping.model_source import ModelSource


def risky(seed=5, S=4, A=2, sharp=0.3):
    """Random dynamics whose successors differ much in value."""
    rng = np.random.default_rng(seed)
    P, r = rng.dirichlet(sharp * np.ones(S), (S, A)), 3 * rng.normal(size=(S, A))
    arguments = {"horizon": None, "discount": 0.8, "temperature": 0.5, "initial": np.ones(S)}
    return models.tabular(P, r, **arguments)


class Exact(nn.Module):
    """The values of an exact solution in place of a network."""

    def __init__(self, V):
        super().__init__()
        self.V = V

    def forward(self, t, s):
        return self.V[s]


def consistency(model, n, length, double=False):
    solution = inference.soft_values(model)
    source = ModelSource(model, n, time_limit=7)
    state = PathConsistency(
        solution.policy, Exact(solution.V), Stepped(model, source, None), length, double=double
    )
    state.alpha = model.temperature
    return state, source


@pytest.mark.parametrize("length", [1, 3, 10])
def test_segments_of_any_behaviour_are_consistent_where_dynamics_are_deterministic(length):
    torch.manual_seed(0)
    S, A = 6, 3
    rng = np.random.default_rng(0)
    P = np.eye(S)[rng.integers(S, size=(S, A))]
    prior = rng.dirichlet(np.ones(A), S)
    model = models.tabular(
        P,
        rng.normal(size=(S, A)),
        horizon=None,
        discount=0.9,
        action_prior=prior,
        initial=prior[:, 0],
    )
    state, source = consistency(model, 50, length)
    taken = [source.step(torch.randint(A, (50,))) for _ in range(length)]
    assert state.errors(taken).abs().max() < 1e-8


@pytest.mark.parametrize("length", [1, 4])
def test_the_mean_of_the_error_is_zero_and_its_square_is_not_where_they_are_random(length):
    torch.manual_seed(0)
    n = 100_000
    state, source = consistency(risky(), n, length)
    errors = state.errors([source.step(torch.randint(2, (n,))) for _ in range(length)])[0]
    stderr = errors.std() / n**0.5
    assert errors.mean().abs() < 4.5 * stderr
    assert errors.square().mean() > 1


def test_products_of_two_successors_have_the_mean_zero_at_the_optimum():
    torch.manual_seed(0)
    n = 100_000
    state, source = consistency(risky(), n, 1, double=True)
    taken = source.step(torch.randint(2, (n,)))
    product = state.errors([taken]) * state.errors([source.again(taken)])
    assert product.mean().abs() < 4.5 * product.std() / n**0.5
    assert torch.equal(source.s, taken.s_next)


def learnt_values(model, **options):
    arguments = {"steps": 15_000, "num_envs": 32, "learning_rate": 0.05, "length": 1}
    policy = cai.TabularPolicy(model, stationary=True)
    return [
        inference.path_consistency(
            model, policy, seed=seed, progress=False, **(arguments | options)
        ).values(torch.arange(4))
        for seed in range(3)
    ]


def spread(V):
    return (V.max() - V.min()).item()


def test_squares_prefer_calm_and_semi_gradients_and_two_successors_do_not():
    model = risky()
    exact = spread(inference.soft_values(model).V)
    found = {
        name: statistics.median(spread(V) for V in learnt_values(model, **options)) / exact
        for name, options in {
            "both": {},
            "first": {"ends": "first"},
            "double": {"double": True},
        }.items()
    }
    assert found["both"] < 0.7
    assert found["first"] > 0.85
    assert found["double"] > 0.85


@pytest.mark.parametrize("how", [{"ends": "first"}, {"double": True}])
def test_one_network_gives_the_policy_and_the_values(how):
    model, s = risky(), torch.arange(4)
    exact = inference.soft_values(model)
    errors = []
    for seed in range(3):
        learnt = inference.path_consistency(
            model,
            None,
            steps=30_000,
            num_envs=64,
            length=1,
            hidden=(32,),
            learning_rate=0.01,
            seed=seed,
            progress=False,
            **how,
        )
        V, log_pi = learnt.values(s), learnt.policy(0, s).logits
        Q = torch.stack([learnt.action_values(s, a) for a in torch.arange(2)], 1)
        ratio = Q - V[:, None] - model.temperature * (log_pi - cai.tabulate(model).log_prior)
        assert ratio.abs().max() < 1e-6  # V, Q and π are of one network
        errors.append((V - exact.V).abs().max().item())
    assert statistics.median(errors) < 0.1 * exact.V.abs().max()


def test_relative_to_a_policy_that_lags_behind_it_goes_towards_the_hard_rule():
    model = risky()
    arguments = {"steps": 30_000, "num_envs": 32, "learning_rate": 0.1, "length": 1}
    policy = cai.TabularPolicy(model, stationary=True)
    soft, hard = (inference.soft_values(model, rule=x) for x in ("soft", "hard"))
    goals = [cai.evaluate(model, x.policy).expected_return for x in (soft, hard)]
    returns = []
    for seed in range(3):
        learnt = inference.path_consistency(
            model, policy, lag=0.1, ends="first", seed=seed, progress=False, **arguments
        )
        returns.append(cai.evaluate(model, learnt.policy).expected_return)
    assert goals[0] < statistics.median(returns) <= goals[1] + 1e-9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"double": True, "length": 2}, "double: expected segments of one step of a model"),
        ({"ends": "last"}, 'ends: expected "both" or "first"'),
        ({"lag": 1.5}, "lag: expected"),
        ({"length": 0}, "length: expected"),
        ({"policy": 3}, "policy: expected a torch module"),
        (
            {"policy": None, "model": models.pendulum()},
            "source: expected finitely many actions, got .*; give it a policy",
        ),
    ],
)
def test_wrong_input(wrong, message):
    arguments = {"model": models.ledge(), "progress": False} | wrong
    model = arguments.pop("model")
    arguments.setdefault("policy", cai.TabularPolicy(models.ledge()))
    with pytest.raises(ValueError, match=message):
        inference.path_consistency(model, **arguments)

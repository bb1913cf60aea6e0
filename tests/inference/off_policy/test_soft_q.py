"""Soft Q-learning ends at the exact values of the rule that it samples, not of the posterior."""

import numpy as np
import pytest
import torch

import cai
from cai import inference, models

RULES = ["soft", "hard", "boltzmann", "planned"]
SEEDS = range(3)


def problem(seed=3, S=4, A=3, **changes):
    """Random dynamics, rewards and priors, on which the rules are far from one another."""
    rng = np.random.default_rng(seed)
    arguments = {
        "transitions": rng.dirichlet(np.ones(S), (S, A)),
        "reward": 2 * rng.normal(size=(S, A)) - 2.5,
        "initial": np.ones(S),
        "action_prior": rng.dirichlet(2 * np.ones(A), S),
        "horizon": None,
        "discount": 0.8,
        "temperature": 0.7,
    }
    return models.tabular(**(arguments | changes))


def apart(V, exact):
    return ((V - exact).abs().max() / exact.abs().max()).item()


def mean_error(model, exact, **options):
    """The largest error of V over the largest value, its mean over seeds."""
    S, errors = torch.arange(len(exact)), []
    for seed in SEEDS:
        learnt = inference.soft_q(model, seed=seed, progress=False, **options)
        errors.append(apart(learnt.values(S), exact))
    return sum(errors) / len(errors)


def apart_from(rule):
    """The rules that have other values."""
    return set(RULES) - ({"hard", "planned"} if rule in ("hard", "planned") else {rule})


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_it_converges_to_the_values_of_its_own_rule_whatever_the_behaviour(rule, own):
    model = problem()
    exact = inference.soft_values(model, rule=rule).V
    behaviour = "own" if own else lambda t, s: model.prior(s)
    assert mean_error(model, exact, steps=30_000, rule=rule, behaviour=behaviour) < 0.02
    others = [inference.soft_values(model, rule=other).V for other in apart_from(rule)]
    posterior = inference.soft_values(model, optimism=1.0).V
    assert all(apart(other, exact) > 0.15 for other in [*others, posterior])


@pytest.mark.parametrize("length", [2, 5])
def test_segments_have_the_same_fixed_point_off_policy(length):
    model = problem()
    exact = inference.soft_values(model).V
    options = {"steps": 30_000, "length": length, "exploration": 0.5}
    assert mean_error(model, exact, **options) < 0.02


def test_the_time_is_part_of_the_state_where_the_horizon_is_finite():
    model = problem(horizon=4, discount=0.9, final_reward=[0.0, 3.0, -3.0, 1.0])
    exact = inference.soft_values(model)
    for length in (1, 3):
        for seed in SEEDS:
            learnt = inference.soft_q(model, steps=40_000, length=length, seed=seed, progress=False)
            t = torch.arange(4)[:, None]
            assert apart(learnt.values(torch.arange(4), t), exact.V[:-1]) < 0.04
            loss = exact.elbo - cai.evaluate(model, learnt.policy).elbo
            assert 0 <= loss < 0.01 * abs(exact.elbo)


def test_a_truncated_episode_has_a_value_after_it_and_a_terminated_one_has_none():
    # From state 0 one step leads to the end; state 1 pays -1 a step for ever, discounted.
    P = torch.zeros(3, 1, 3)
    P[0, 0, 2] = P[1, 0, 1] = P[2, 0, 2] = 1
    model = models.tabular(
        P, [[-2.0], [-1.0], [0.0]], horizon=None, initial=[1.0, 1.0, 0.0], discount=0.5
    )
    source = cai.stepping.model_source.ModelSource(model, 8, time_limit=3)
    learnt = inference.soft_q(source, steps=4000, progress=False)
    assert learnt.values(torch.tensor([0, 1])).tolist() == pytest.approx([-2.0, -2.0], rel=1e-3)


def test_a_falling_temperature_ends_at_the_values_of_the_last():
    model = problem()
    exact = inference.soft_values(model).V
    alpha = model.temperature
    options = {"steps": 60_000, "temperature": lambda step: max(alpha, 5.0 - step / 3000)}
    assert mean_error(model, exact, **options) < 0.03


def test_rewards_of_minus_infinity_forbid():
    model = problem(reward=[[-1.0, -torch.inf, -2.0]] * 4)
    exact = inference.soft_values(model)
    learnt = inference.soft_q(model, steps=20_000, progress=False)
    assert (learnt.action_values(torch.arange(4), torch.tensor(1)) == -torch.inf).all()
    assert apart(learnt.values(torch.arange(4)), exact.V) < 0.02


def test_an_environment_is_learnt_as_the_model_of_its_table():
    model = models.gym("FrozenLake-v1", horizon=None, discount=0.8, temperature=0.3)
    exact = inference.soft_values(model).V
    lake = models.environment("FrozenLake-v1", temperature=0.3, discount=0.8)
    learnt = inference.soft_q(lake, steps=40_000, progress=False)
    assert abs(learnt.values(torch.tensor(0)) - exact[0]).item() < 0.3 * exact[0].item()
    assert learnt.history["returns"].nanmean() > 0


def test_the_same_seed_learns_the_same_and_leaves_the_generator_alone():
    model, before = problem(), torch.get_rng_state()
    one, two = (inference.soft_q(model, steps=2000, seed=4, progress=False) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.values(torch.arange(4)), two.values(torch.arange(4)))


def test_the_history_has_the_returns_of_episodes():
    model = models.ledge()
    learnt = inference.soft_q(model, steps=20_000, exploration=0.0, progress=False)
    steps, returns = learnt.history["steps"], learnt.history["returns"]
    assert steps[-1] >= 20_000
    assert len(steps) == len(returns) > 90
    expected = cai.evaluate(model, inference.soft_values(model).policy).expected_return
    late = returns[len(returns) // 2 :]
    assert late.nanmean().item() == pytest.approx(expected, abs=0.15)


def test_records_are_told_while_the_run_goes_on():
    told = []
    learnt = inference.soft_q(models.ledge(), steps=5000, callback=told.append, progress=False)
    for name, column in learnt.history.items():
        key = {"steps": "step"}.get(name, name)
        found = torch.tensor([record[key] for record in told], dtype=torch.float64)
        assert torch.equal(found.nan_to_num(0.5), column.nan_to_num(0.5)), name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"source": models.pendulum()},
            "source: expected finitely many actions, got .* take policy_gradient",
        ),
        ({"source": 3}, "source: expected a model"),
        ({"rule": "softer"}, 'rule: expected "soft", "hard"'),
        ({"length": 0}, "length: expected"),
        ({"behaviour": "greediest"}, 'behaviour: expected "own", "greedy" or "boltzmann"'),
        ({"behaviour": lambda t, s: torch.distributions.Normal(0.0, 1.0)}, "behaviour: expected"),
        ({"length": 2, "rule": "hard"}, "length: expected segments of one step"),
        ({"decay": 0.5}, "decay: expected"),
        ({"exploration": 2}, "exploration: expected"),
        ({"steps": 1.5}, "steps: expected"),
        ({"callback": "run.log"}, "callback: expected a function of a record"),
        ({"temperature": lambda step: -1.0}, r"temperature\(0\): expected"),
        ({"temperature": 0.5}, "temperature: expected a function step -> α, got 0.5; for one α"),
        (
            {"behaviour": lambda t, s: 1 / 0},
            "behaviour: expected a function that .* Zero",
        ),
    ],
)
def test_wrong_input(wrong, message):
    arguments = {"source": models.ledge(), "progress": False} | wrong
    with pytest.raises(ValueError, match=message):
        inference.soft_q(arguments.pop("source"), **arguments)

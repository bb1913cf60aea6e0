"""What is passed by mistake to samplers and diagnostics is named in one message."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from examples import continuous, random_model

import cai
from cai import inference, models

LEDGE, PAIR = (
    models.ledge(),
    models.tabular(torch.eye(2)[None].expand(2, -1, -1).mT, torch.zeros(2, 2), horizon=4),
)
POLICY = inference.soft_values(LEDGE).policy


def nan(t, s):
    return dist.Categorical(logits=math.nan * torch.ones(*s.shape, 2))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (None, "policy: expected a function .* got NoneType; "),
        ("prior", "policy: expected a function .* got str; "),
        (inference.soft_values(LEDGE), "got Solution; pass its .policy"),
        (dist.Categorical(torch.ones(2)), "got Categorical; .* lambda t, s: distribution"),
        (lambda s: dist.Categorical(torch.ones(2)), "one that raised TypeError: .* another model;"),
        (nan, "finite parameters at step 0, got another parameter logits .* look for NaN"),
        (inference.soft_values(random_model(1)).policy, "one that raised RuntimeError"),
    ],
)
def test_policies(policy, message):
    for ask in (inference.importance, inference.evidence_bracket, cai.TrajectoryModel.simulate):
        with pytest.raises(ValueError, match=message) as caught:
            ask(LEDGE, policy, **({"samples": 9} if ask is cai.TrajectoryModel.simulate else {}))
        assert "\n" not in str(caught.value)
    if policy is not None and not hasattr(policy, "bound"):  # the prior, or one that bends
        with pytest.raises(ValueError, match=message):
            inference.smc(LEDGE, 9, proposal=policy)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3.0, "value: expected a function .* got float"),
        (inference.soft_values(LEDGE).V, "value: expected a function .* got Tensor"),
        (lambda s: 0.0, "value: .* one that raised TypeError"),
        (lambda t, s: None, "value: expected one number for each state, .* got NoneType"),
        (lambda t, s: math.nan, "value: expected numbers, got NaN at step"),
    ],
)
def test_value_functions(value, message):
    with pytest.raises(ValueError, match=message):
        inference.evidence_bracket(LEDGE, POLICY, samples=200, value=value)
    model = continuous()
    with pytest.raises(ValueError, match=message):
        cai.compare(model, {"untrained": cai.NeuralPolicy(model)}, value=value)


@pytest.mark.parametrize(
    ("twist", "message"),
    [
        (lambda t, s: None, "twist: expected one number for each state, .* got NoneType"),
        (lambda t, s: torch.zeros(7), r"twist: .* shape \[9\], got shape \[7\]"),
        (lambda s: 0.0, "twist: .* one that raised TypeError"),
        (POLICY, "twist: expected one number for each state, .* got Categorical"),
        (inference.soft_values(models.lottery()), "twist: expected a solution of .* steps, got"),
        (inference.soft_values(PAIR), "twist: expected a solution of .* states, got 2"),
    ],
)
def test_twists(twist, message):
    with pytest.raises(ValueError, match=message):
        inference.smc(LEDGE, 9, twist)


def test_twists_of_other_kinds_of_states():
    gaussian = random_model(1)
    with pytest.raises(ValueError, match=r"twist: expected a solution of as many states as"):
        inference.smc(continuous(), 9, inference.soft_values(models.ledge(horizon=5)))
    other = inference.posterior(random_model(2, n=gaussian.state_size + 1))
    with pytest.raises(ValueError, match=r"twist: expected a solution of \(\d,\) states, got \(\d"):
        inference.smc(gaussian, 9, other)


@pytest.mark.parametrize("model", [None, "ledge", cai.tabulate(LEDGE)])
def test_models(model):
    for ask in (
        lambda: inference.evidence_bracket(model, POLICY),
        lambda: inference.importance(model, POLICY),
        lambda: inference.smc(model),
        lambda: inference.price_ladder(model),
        lambda: inference.factorised_plan(model),
        lambda: inference.sample_plans(model),
    ):
        with pytest.raises(ValueError, match=r"model: expected a cai.TrajectoryModel, got "):
            ask()


@pytest.mark.parametrize("seed", ["one", math.nan, math.inf, 0.5, [1]])
def test_seeds(seed):
    for ask in (
        lambda: inference.evidence_bracket(LEDGE, POLICY, seed=seed),
        lambda: inference.importance(LEDGE, POLICY, seed=seed),
        lambda: inference.smc(LEDGE, seed=seed),
        lambda: inference.factorised_plan(LEDGE, seed=seed),
        lambda: inference.sample_plans(continuous(), seed=seed),
    ):
        with pytest.raises(ValueError, match="seed: expected a whole number, got "):
            ask()


def test_numbers_of_numpy():
    plan = inference.factorised_plan(LEDGE, seed=np.int64(1))
    assert plan.elbo == inference.factorised_plan(LEDGE, seed=1).elbo
    with pytest.raises(
        ValueError, match=r"particles: .* got (np.int64\()?9\)?; convert it with int\(…\)"
    ):
        inference.smc(LEDGE, np.int64(9))
    with pytest.raises(ValueError, match=r"ess_threshold: expected a number in .* got '1'"):
        inference.smc(LEDGE, ess_threshold="1")


def test_what_is_averaged():
    """Weightless trajectories have no part in a mean, whatever they were paid."""
    model = models.tabular(
        torch.tensor([[[0.5, 0.5]], [[0.5, 0.5]]]), torch.tensor([[0.0], [-math.inf]]), horizon=2
    )
    sample = inference.importance(model, lambda t, s: model.prior(s, t), 100)
    returns = sample.trajectories.returns
    assert (returns == -math.inf).any()
    assert sample.mean(returns) == 0
    assert sample.stderr(returns) == 0
    assert sample.mean(np.ones(100)) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"values: expected one for each of 100 .* shape \[7\]"):
        sample.mean(torch.zeros(7))
    for values in (None, "x"):
        with pytest.raises(ValueError, match="log_weights: expected numbers"):
            inference.pareto_k(values)


def test_observations_and_options():
    for observe in (lambda s, t: s, lambda s: {}[s]):
        with pytest.raises(ValueError, match=r"observe: .* one that raised (TypeError|KeyError)"):
            inference.price_ladder(LEDGE, observe)
    with pytest.raises(ValueError, match=r"options: expected of .* max_tree_depth, .* got depth"):
        inference.sample_plans(continuous(), depth=3)

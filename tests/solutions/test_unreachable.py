"""A state that cannot be reached, and is worth -inf, changes no number: 0 · inf = 0 everywhere."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import cai
from cai import inference, models

worlds = pytest.mark.parametrize("discount", [1.0, 0.8])
ends = pytest.mark.parametrize("horizon", [None, 4])
ways = pytest.mark.parametrize("how", ["reward", "arrival", "final", "way in"])


def pair(discount, horizon, how):
    """The same problem without and with a state more."""
    rng = np.random.default_rng(3)
    P, r = rng.dirichlet(np.ones(3), (3, 2)), -rng.random((3, 2))
    arrival = -0.3 * rng.random((3, 2, 3))
    P[-1], r[-1], arrival[-1] = np.eye(3)[-1], 0, 0
    wide, paid = np.zeros((4, 2, 4)), np.zeros((4, 2, 4))
    wide[:3, :, :3], paid[:3, :, :3] = P, arrival
    wide[3, :, 0 if how == "way in" else 3] = 1
    lost = -1.0 if how == "arrival" or (how == "final" and horizon) else -math.inf
    if how == "arrival":
        paid[3] = -math.inf
    settings = {"horizon": horizon, "discount": discount, "temperature": 0.7}
    more = dict(settings)
    if horizon:
        settings["final_reward"] = rng.normal(size=3)
        more["final_reward"] = np.append(settings["final_reward"], -math.inf)
    first = np.array([0.6, 0.4, 0.0])
    return (
        models.tabular(P, r, arrival_reward=arrival, initial=first, **settings),
        models.tabular(
            wide,
            np.vstack([r, [[lost, lost]]]),
            arrival_reward=paid,
            initial=np.append(first, 0.0),
            **more,
        ),
    )


def same(one, other):
    one, other = (torch.as_tensor(x, dtype=torch.float64) for x in (one, other))
    torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)


@worlds
@ends
@ways
def test_the_curve(discount, horizon, how):
    """Slopes at η = 0, where they are a variance, termination included."""
    etas = (-0.3, -1e-9, 0.0, 1e-9, 0.4, 1.0, math.inf)
    one, other = (inference.optimism_curve(m, etas) for m in pair(discount, horizon, how))
    for name in ("bound", "tilt", "slope", "elbo", "expected_return", "imagined_return"):
        same(getattr(one, name), getattr(other, name))
    h = 1e-4
    around = [inference.soft_values(pair(discount, horizon, how)[1], x).bound for x in (-h, h)]
    assert other.slope[2].item() == pytest.approx((around[1] - around[0]) / (2 * h), rel=1e-6)


@worlds
@ends
@ways
@pytest.mark.parametrize("eta", [-0.3, 0.0, 1.0])
@pytest.mark.parametrize("rule", ["soft", "hard", "boltzmann", "planned"])
def test_solutions_and_what_they_are_worth(discount, horizon, how, eta, rule):
    one, other = (inference.soft_values(m, eta, rule) for m in pair(discount, horizon, how))
    for name in ("bound", "imagined_return", "entropy", "total_tilt"):
        same(getattr(one, name), getattr(other, name))
    same(one.states, other.states[..., :3])
    same(one.V, other.V[..., :3])
    for name in ("Q", "state_actions"):
        same(getattr(one, name), getattr(other, name)[..., :3, :])
    worth = [cai.evaluate(found.table, found.policy) for found in (one, other)]
    for name in ("elbo", "expected_return", "entropy"):
        same(*(getattr(each, name) for each in worth))


@worlds
@ends
@ways
def test_comparisons_and_gradients(discount, horizon, how):
    reports, slopes = [], []
    for model in pair(discount, horizon, how):
        methods = {f"{eta:g}": inference.soft_values(model, eta) for eta in (-0.2, 0.0, 1.0)}
        reports.append(cai.compare(model, methods).rows.values())
        table = cai.tabulate(model)
        reward = table.reward.clone().requires_grad_()
        bound = inference.differentiable_bound(
            dataclasses.replace(table, reward=reward), optimism=0.5
        )
        slopes.append(torch.autograd.grad(bound, reward)[0])
    for one, other in zip(*reports, strict=True):
        for name in ("elbo", "kl_start", "kl_actions", "kl_dynamics", "expected_return"):
            same(getattr(one, name), getattr(other, name))
    same(slopes[0], slopes[1][:3])


@worlds
@ways
@pytest.mark.parametrize("estimator", ["exact", "mirror"])
@pytest.mark.parametrize("stationary", [False, True])
def test_fits_without_sampling(discount, how, estimator, stationary):
    elbos = []
    for model in pair(discount, 4, how):
        policy = cai.TabularPolicy(model, stationary=stationary)
        fitted = inference.fit(model, policy, steps=5, estimator=estimator, progress=False)
        elbos.append(fitted.elbo)
    same(*elbos)

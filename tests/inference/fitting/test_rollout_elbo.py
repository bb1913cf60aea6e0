"""The estimators inside plain SVI: the same gradients, and the same optimum."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import scramble
from pyro.infer import SVI, Trace_ELBO

import cai
from cai import inference, models
from cai.inference.gradients.exact_gradient import exact_gradient


def test_a_step_of_svi_follows_the_exact_gradient():
    model = models.ledge()
    policy = scramble(cai.TabularPolicy(model))
    before = policy.logits.detach().clone()
    loss = exact_gradient(cai.tabulate(model), policy)()
    slope = policy.logits.grad.clone()
    policy.zero_grad()
    svi = SVI(model, model.rollout(policy), pyro.optim.SGD({"lr": 0.1}), inference.RolloutELBO())
    assert svi.evaluate_loss() == pytest.approx(loss, abs=1e-12)
    assert svi.step() == pytest.approx(loss, abs=1e-12)
    assert torch.allclose(policy.logits, before - 0.1 * slope, rtol=0, atol=1e-12)
    svi.step()  # gradients do not pile up
    again = policy.logits.detach().clone()
    assert svi.step() < loss
    assert not torch.equal(policy.logits, again)


@pytest.mark.parametrize("estimator", ["auto", "enumerated", "mirror"])
def test_svi_comes_to_the_optimum(estimator):
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    optim = pyro.optim.SGD({"lr": 1.0}) if estimator == "mirror" else pyro.optim.Adam({"lr": 0.1})
    svi = SVI(model, model.rollout(policy), optim, inference.RolloutELBO(estimator))
    for _ in range(5 if estimator == "mirror" else 150):
        svi.step()
    best = inference.soft_values(model).elbo
    assert best - 0.05 < cai.evaluate(model, policy).elbo <= best + 1e-9


def test_continuous_models_by_their_pathwise_gradient():
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 0.3),
        dynamics=lambda s, a: dist.Normal(s + 0.5 * a, 0.1),
        reward=lambda s, a: -((s - 1) ** 2),
        action_prior=dist.Normal(0.0, 1.0),
        horizon=10,
    )
    policy = cai.NeuralPolicy(model)
    before = cai.evaluate(model, policy).elbo
    elbo = inference.RolloutELBO("pathwise", samples=50)
    svi = SVI(model, model.rollout(policy), pyro.optim.Adam({"lr": 0.01}), elbo)
    for _ in range(100):
        svi.step()
    assert cai.evaluate(model, policy).elbo > before + 5


def test_what_it_cannot_train():
    model = models.ledge()
    with pytest.raises(ValueError, match='got "renyi"; take'):
        inference.RolloutELBO("renyi")
    with pytest.raises(ValueError, match="samples: expected at least 2"):
        inference.RolloutELBO(samples=1)
    with pytest.raises(ValueError, match="estimator: expected one of"):
        inference.RolloutELBO("reinforce")
    optim, elbo = pyro.optim.Adam({"lr": 0.1}), inference.RolloutELBO()
    for guide in (lambda: None, model.rollout(lambda t, s: model.prior(s))):
        with pytest.raises(ValueError, match=r"RolloutELBO: expected SVI\(model, model.rollout"):
            SVI(model, guide, optim, elbo).step()
    fixed = cai.TabularPolicy.from_log_probs(torch.full((5, 2), 0.5).log())
    with pytest.raises(ValueError, match="policy: expected one with parameters to train, got Tab"):
        SVI(model, model.rollout(fixed), optim, elbo).step()
    SVI(model, model.rollout(cai.TabularPolicy(model)), optim, Trace_ELBO()).step()

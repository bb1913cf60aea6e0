"""A temperature that adapts ends where the best policy pays just as many nats."""

import statistics

import numpy as np
import pytest
import torch

import cai
from cai import inference, models


def contextual_bandit(A, seed=0):
    """Three contexts, A actions, an uneven prior; what is done changes nothing later."""
    rng = np.random.default_rng(seed)
    return models.tabular(
        np.broadcast_to(np.eye(3)[:, None], (3, A, 3)),
        rng.normal(size=(3, A)),
        horizon=1,
        initial=rng.dirichlet(np.ones(3)),
        action_prior=rng.dirichlet(4 * np.ones(A)),
        temperature=0.05,
    )


def learnt(learner, model, nats, seed, **how):
    how = {"temperature": inference.AutomaticTemperature(nats), "seed": seed, **how}
    if learner == "soft_q":
        return inference.soft_q(model, steps=120_000, exploration=0.0, progress=False, **how)
    policy = cai.TabularPolicy(model)
    return inference.policy_gradient(
        model,
        policy,
        steps=120_000,
        num_envs=64,
        length=1,
        learning_rate=0.03,
        progress=False,
        **how,
    )


@pytest.mark.parametrize("learner", ["soft_q", "policy_gradient"])
@pytest.mark.parametrize(("A", "nats"), [(2, 0.15), (5, 0.4)])
def test_on_a_contextual_bandit_it_is_that_of_the_budget(learner, A, nats):
    model = contextual_bandit(A)
    exact = inference.divergence_budget(model, nats)
    assert exact.temperature > 2 * model.temperature  # it starts somewhere else
    found = [learnt(learner, model, nats, seed) for seed in range(3)]
    off = [run.temperature / exact.temperature - 1 for run in found]
    assert abs(statistics.median(off)) < 0.05
    assert found[0].history["divergence"][-10:].mean().item() == pytest.approx(nats, rel=0.06)
    worth = [cai.evaluate(model, run.policy).expected_return for run in found]
    assert statistics.median(worth) == pytest.approx(exact.expected_return, abs=0.02)


def test_a_step_raises_the_price_of_what_is_overspent():
    """α exp(ρ (KL - target)), by hand."""
    automatic = inference.AutomaticTemperature(0.5, rate=0.1)
    assert automatic.after(2.0, 0.5) == 2.0
    assert automatic.after(2.0, 1.5) == pytest.approx(2.0 * 1.1051709180756477, rel=1e-15)
    assert automatic.after(2.0, 0.0) < 2.0


def test_a_resumed_run_goes_on_with_what_it_had_found(tmp_path):
    class Stop(RuntimeError):
        pass

    def stops(record):
        if record["step"] > 60_000:
            raise Stop

    model, path = contextual_bandit(3), tmp_path / "run.pt"
    how = {"checkpoint": path, "every": 10_000}
    with pytest.raises(inference.LearningStopped):
        learnt("soft_q", model, 0.2, 0, callback=stops, **how)
    resumed, whole = learnt("soft_q", model, 0.2, 0, **how), learnt("soft_q", model, 0.2, 0)
    assert resumed.temperature == whole.temperature != model.temperature
    assert torch.equal(resumed.values(torch.arange(3)), whole.values(torch.arange(3)))
    with pytest.raises(
        ValueError, match=r"target = AutomaticTemperature\(nats=0.3, rate=0.01\), g"
    ):
        learnt("soft_q", model, 0.3, 0, **how)
    with pytest.raises(ValueError, match=r"expected a run with temperature\(\d+\) = 0.05"):
        learnt("soft_q", model, 0.2, 0, **(how | {"temperature": lambda taken: 0.05}))


def test_what_no_policy_pays_is_refused():
    """log 1/p of the rarest action: α would fall without end."""
    model = contextual_bandit(3)
    rarest = -model.prior(torch.tensor(0), 0).logits.min().item()
    for learner in ("soft_q", "policy_gradient"):
        with pytest.raises(ValueError, match=f"nats: expected less than {rarest:.4g}, .*, got 5;"):
            learnt(learner, model, 5.0, 0)


@pytest.mark.parametrize("wrong", [{"nats": 0.0}, {"nats": "much"}, {"nats": 1.0, "rate": -1.0}])
def test_wrong_input(wrong):
    with pytest.raises(ValueError, match=r"(nats|rate): expected"):
        inference.AutomaticTemperature(**wrong)

"""Training by the ELBO: exact gradients, unbiased samples, and the optimum that is known."""

import math

import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import continuous, scramble
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cai
from cai import inference, models
from cai.inference.gradients import enumerated
from cai.inference.gradients.enumerated import enumerated_gradient
from cai.inference.gradients.exact_gradient import exact_gradient
from cai.inference.gradients.score_function import score_gradient

DEMONSTRATIONS = {
    "ledge": lambda: models.ledge(),
    "lottery": lambda: models.lottery(),
    "FrozenLake": lambda: models.gym("FrozenLake-v1", horizon=20, temperature=0.1),
    "FrozenLake, cold": lambda: models.gym("FrozenLake-v1", horizon=60, temperature=0.01),
}


def gap(model, fitted):
    return inference.soft_values(model).elbo - fitted.elbo


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_the_exact_gradient_reaches_the_optimum(name):
    model = DEMONSTRATIONS[name]()
    fitted = inference.fit(model, cai.TabularPolicy(model))
    assert -1e-9 < gap(model, fitted) < 1e-3
    assert fitted.elbo == pytest.approx(-fitted.losses[-1].item(), abs=1e-3)


@pytest.mark.parametrize("name", ["ledge", "lottery"])
def test_samples_come_within_a_twentieth_of_a_nat(name):
    model = DEMONSTRATIONS[name]()
    fitted = inference.fit(model, cai.TabularPolicy(model), estimator="enumerated")
    assert -1e-9 < gap(model, fitted) < 0.05
    assert gap(model, fitted) < gap(model, cai.evaluate(model, cai.TabularPolicy(model)))


def test_a_network_reaches_it_too():
    model = models.ledge()
    fitted = inference.fit(model, cai.NeuralPolicy(model), steps=800)
    assert gap(model, fitted) < 1e-3


def test_a_program_that_cannot_be_tabulated_at_horizon_100():
    """A controlled walk, s' = s + a/2 + noise, r = -(s - 1)²: the ELBO must rise a long way."""
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 0.3),
        dynamics=lambda s, a: dist.Normal(0.9 * s + 0.5 * a, 0.1),
        reward=lambda s, a: -((s - 1) ** 2),
        action_prior=dist.Normal(0.0, 1.0),
        horizon=100,
        temperature=0.5,
    )
    before = cai.evaluate(model, cai.NeuralPolicy(model), samples=500)
    fitted = inference.fit(model, cai.NeuralPolicy(model), steps=150)
    after = cai.evaluate(model, fitted.policy, samples=500)
    assert before.elbo < -300
    assert after.elbo > -150
    assert fitted.elbo == pytest.approx(after.elbo, abs=8)
    assert len(fitted.losses) == 150


def gradients(estimator, policy, repeats=1):
    """Repeated gradients of -ELBO, (repeats, parameters)."""
    draws = []
    for _ in range(repeats):
        policy.zero_grad()
        estimator()
        draws.append(policy.logits.grad.flatten().clone())
    return torch.stack(draws)


@given(seed=st.integers(0, 10**6), discount=st.sampled_from([1.0, 0.8]))
def test_the_exact_gradient_by_differences(seed, discount):
    problem = oracles.random_problem(seed, T=4, discount=discount)
    model = problem.model()
    table = cai.tabulate(model)
    policy = scramble(cai.TabularPolicy(model))
    (slope,) = gradients(exact_gradient(table, policy), policy)
    direction = torch.randn_like(policy.logits)
    values = []
    for h in (1e-5, -1e-5):
        with torch.no_grad():
            policy.logits.add_(h * direction)
            q = policy.log_probs.exp().numpy()
            values.append(-oracles.elbo(problem, q)[0])
            policy.logits.sub_(h * direction)
    assert (slope @ direction.flatten()).item() == pytest.approx(
        (values[0] - values[1]) / 2e-5, abs=1e-6
    )


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("source", ["table", "program"])
def test_sampled_gradients_are_unbiased(source, discount, monkeypatch):
    monkeypatch.setattr(enumerated, "_PULL", 1)  # where a particle could see itself, it shows
    problem = oracles.random_problem(5, T=3, discount=discount)
    model = problem.model()
    policy = scramble(cai.TabularPolicy(model))
    (exact,) = gradients(exact_gradient(cai.tabulate(model), policy), policy)
    if source == "table":
        estimator, repeats = enumerated_gradient(cai.tabulate(model), policy, 3), 4000
    else:
        estimator, repeats = score_gradient(model, policy, 3), 2500
    draws = gradients(estimator, policy, repeats)
    error = draws.std(0) / math.sqrt(repeats)
    score = (draws.mean(0) - exact).abs() / error.clamp(min=1e-12)
    assert score[error > 1e-9].max() < 4.5
    assert ((draws.mean(0) - exact).abs()[error <= 1e-9] < 1e-9).all()
    # A particle in its own baseline would shrink the gradient: so look along it, closely.
    along = draws @ exact / (exact @ exact)
    stderr = along.std().item() / math.sqrt(repeats)
    assert stderr < 0.03
    assert abs(along.mean().item() - 1) < 4 * stderr


def test_the_baseline_lowers_the_variance():
    model = models.ledge()
    table, policy = cai.tabulate(model), cai.TabularPolicy(model)
    estimator = enumerated_gradient(table, policy, 20)
    with_baseline = gradients(estimator, policy, 200).var(0).sum()
    others, enumerated._others = enumerated._others, lambda to_go, *_: torch.zeros_like(to_go)
    try:
        without = gradients(estimator, policy, 200).var(0).sum()
    finally:
        enumerated._others = others
    assert with_baseline < 0.5 * without


def test_one_table_of_gradients_for_all_steps():
    """The policy is looked up once a step of training, so that memory does not grow as T²."""
    model = models.ledge(horizon=50)
    policy = cai.TabularPolicy(model)
    calls = []
    policy.register_forward_pre_hook(lambda *_: calls.append(1))
    enumerated_gradient(cai.tabulate(model), policy, 5)()
    assert len(calls) <= 1
    network = cai.NeuralPolicy(model)
    network.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    score_gradient(model, network, 5)()
    assert sum(calls) == 1


def test_a_uniform_draw_of_zero_is_possible_too(monkeypatch):
    """torch.rand may return 0, and the first action may be forbidden."""
    P = torch.eye(2).repeat(2, 1, 1)
    model = models.tabular(P, torch.zeros(2, 2), horizon=3, action_prior=[0.0, 1.0])
    table, policy = cai.tabulate(model), cai.TabularPolicy(model)
    monkeypatch.setattr(torch, "rand", torch.zeros)
    assert enumerated_gradient(table, policy, 4)() == 0


def test_the_policy_and_the_store_stay_as_they_are():
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    pyro.param("mine", torch.tensor(1.0))
    fitted = inference.fit(model, policy, steps=50)
    assert policy.logits.abs().max() == 0
    assert fitted.policy is not policy
    assert list(pyro.get_param_store()) == ["mine"]
    state = torch.random.get_rng_state()
    inference.fit(model, policy, steps=5, estimator="enumerated")
    assert torch.equal(state, torch.random.get_rng_state())


def test_fits_are_seeded_and_do_not_touch_each_other():
    model = models.ledge()
    arguments = {"steps": 40, "estimator": "enumerated"}
    one = inference.fit(model, cai.TabularPolicy(model), seed=1, **arguments)
    kept = one.policy.logits.clone()
    two = inference.fit(model, cai.TabularPolicy(model), seed=1, **arguments)
    other = inference.fit(model, cai.TabularPolicy(model), seed=2, **arguments)
    assert torch.equal(one.policy.logits, kept)
    assert torch.equal(one.losses, two.losses)
    assert torch.equal(one.policy.logits, two.policy.logits)
    assert not torch.equal(one.losses, other.losses)


def test_a_fit_goes_on_from_another():
    model = models.ledge()
    first = inference.fit(model, cai.TabularPolicy(model), steps=5)
    second = inference.fit(model, first.policy, steps=5)
    assert -second.losses[0].item() == pytest.approx(first.elbo, abs=1e-12)


def test_running_mean_and_early_stop():
    model = models.ledge()
    fitted = inference.fit(model, cai.TabularPolicy(model))
    assert len(fitted.losses) < 2000
    losses, mean = fitted.losses, fitted.running_mean
    assert mean.shape == losses.shape
    assert mean[0] == losses[0]
    assert mean[30].item() == pytest.approx(losses[:31].mean().item(), abs=1e-12)
    assert mean[200].item() == pytest.approx(losses[151:201].mean().item(), abs=1e-12)


def test_a_progress_bar_on_a_terminal_only(capsys):
    model = models.ledge()
    inference.fit(model, cai.TabularPolicy(model), steps=3)
    assert capsys.readouterr() == ("", "")


def test_rewards_of_minus_infinity_are_avoided_not_differentiated():
    """The fatal action is masked, also where the loss comes only two steps later."""
    P = torch.zeros(4, 2, 4)
    P[0, 0, 1] = P[0, 1, 2] = P[1, :, 3] = P[2, :, 2] = P[3, :, 3] = 1
    r = torch.tensor([[0.0, -1.0], [0.0, 0.0], [0.0, 0.0], [-math.inf, -math.inf]])
    model = models.tabular(P, r, horizon=3)
    best = inference.soft_values(model)
    assert best.policy.log_probs[0, 0].exp().tolist() == [0, 1]
    for stationary in (False, True):
        fitted = inference.fit(model, cai.TabularPolicy(model, stationary), steps=100)
        assert fitted.elbo == pytest.approx(best.elbo, abs=1e-6)
        assert fitted.policy.logits.isfinite().all()
    sampled = inference.fit(model, cai.TabularPolicy(model), steps=100, estimator="enumerated")
    assert sampled.elbo == pytest.approx(best.elbo, abs=0.05)
    with pytest.raises(ValueError, match=r"fit: the ELBO is -inf: .* action_prior"):
        inference.fit(model, cai.NeuralPolicy(model))


def test_what_cannot_be_fitted():
    model = models.ledge()
    with pytest.raises(ValueError, match=r"policy: fit trains .* got function .* pyro.param"):
        inference.fit(model, lambda t, s: model.prior(s))
    with pytest.raises(ValueError, match="got TabularPolicy without any"):
        inference.fit(model, inference.posterior(model).policy)
    with pytest.raises(ValueError, match='estimator: expected one of "auto", "exact"'):
        inference.fit(model, cai.TabularPolicy(model), estimator="reinforce")
    with pytest.raises(ValueError, match="samples: expected at least 2"):
        inference.fit(model, cai.TabularPolicy(model), samples=1)
    with pytest.raises(ValueError, match="steps: expected a whole number"):
        inference.fit(model, cai.TabularPolicy(model), steps=0)
    with pytest.raises(ValueError, match="learning_rate: expected a finite number above 0"):
        inference.fit(model, cai.TabularPolicy(model), learning_rate=-1.0)
    walk = continuous()
    with pytest.raises(ValueError, match='estimator "exact": expected a model with finitely many'):
        inference.fit(walk, cai.NeuralPolicy(walk), estimator="exact")
    with pytest.raises(ValueError, match="policy: a table of shape"):
        inference.fit(model, cai.TabularPolicy(models.lottery()))


def test_a_module_of_ones_own():
    """Any module (t, s) -> distribution trains: here one number for each step."""

    class Clock(nn.Module):
        def __init__(self):
            super().__init__()
            self.odds = nn.Parameter(torch.zeros(4))

        def forward(self, t, s):
            odds = self.odds[t] + torch.zeros(s.shape)
            return dist.Categorical(logits=torch.stack([odds, torch.zeros_like(odds)], -1))

    model = models.ledge()
    fitted = inference.fit(model, Clock(), steps=400, learning_rate=0.1)
    assert torch.sigmoid(fitted.policy.odds[0]).item() == pytest.approx(0.269, abs=0.01)


def test_a_learning_rate_of_zero_is_not_the_default():
    model = models.ledge()
    with pytest.raises(ValueError, match="learning_rate: expected a finite number above 0, got 0"):
        inference.fit(model, cai.TabularPolicy(model), learning_rate=0)

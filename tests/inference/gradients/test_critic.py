"""Learnt critics and generalised advantages: unbiased where they should be, and of less noise."""

import copy
import functools
import io
import itertools

import pytest
import torch
from examples import continuous, regulator, scramble, tiny
from paths import every_trajectory, gradient, trajectories

import cai
from cai import inference, models
from cai.inference.gradients.critic import critic_gradient
from cai.inference.gradients.exact_gradient import advantages, exact_gradient
from cai.inference.gradients.score_function import score_gradient
from cai.policies.critics import NeuralCritic, TabularCritic


def expected(monkeypatch, model, policy, values, lam):
    """The gradient over all pairs of trajectories, with a critic that stays as it is, (2, S)."""
    estimate = critic_gradient(model, policy, 2, lam=lam)
    monkeypatch.setattr(estimate.module, "forward", lambda t, s: values[t, s])
    monkeypatch.setattr(estimate.module, "learn", lambda *_: None)
    pair = None
    monkeypatch.setattr(cai.TrajectoryModel, "simulate", lambda *_: trajectories(model, pair))
    paths, mean = list(every_trajectory(model, policy)), 0.0
    for pair in itertools.product(paths, paths):
        mean = mean + pair[0][0] * pair[1][0] * gradient(estimate, policy)
    return mean


@pytest.mark.parametrize("discount", [1.0, 0.7])
@pytest.mark.parametrize(("lam", "right"), [(1.0, False), (0.5, True), (0.0, True)])
def test_the_expectation_over_all_pairs_of_trajectories(lam, right, discount, monkeypatch):
    """λ = 1 is unbiased whatever the critic says, any λ where it is right; else there is a bias."""
    model = tiny(discount)
    table, policy = cai.tabulate(model), scramble(cai.TabularPolicy(model))
    exact = gradient(exact_gradient(table, policy), policy)
    values = advantages(table)(policy.log_probs.detach()).values
    wrong = values + torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 0.0]])
    mean = expected(monkeypatch, model, policy, values if right else wrong, lam)
    assert torch.allclose(mean, exact, rtol=0, atol=1e-12)
    if lam < 1:
        mean = expected(monkeypatch, model, policy, wrong, lam)
        assert (mean - exact).abs().max() > 1e-3


def test_a_table_learns_the_values():
    model = models.ledge(horizon=5, discount=0.9)
    policy = cai.TabularPolicy(model)
    estimate = critic_gradient(model, policy, 500)
    assert estimate.module(torch.arange(5), torch.zeros(5)).abs().max() == 0
    torch.manual_seed(0)
    for _ in range(30):
        gradient(estimate, policy)
    v = advantages(cai.tabulate(model))(policy.log_probs.detach()).values[:-1]
    often = estimate.module.visits > 1000
    assert often.sum() >= 8
    t, s = often.nonzero().unbind(1)
    torch.testing.assert_close(estimate.module(t, s), v[often], rtol=0, atol=0.15)


def test_few_visits_count_towards_the_mean_of_the_step():
    critic = TabularCritic(models.ledge(horizon=1))
    s, paid = torch.tensor([[0]] * 5 + [[1]] * 3 + [[2]]), torch.tensor([[4.0]] * 8 + [[99.0]])
    alive = torch.tensor([[True]] * 8 + [[False]])
    critic.learn(s, paid.double(), alive)
    assert critic(torch.tensor(0), torch.arange(5)).tolist() == pytest.approx([4.0] * 5)
    critic.learn(s[5:8], 8 + torch.zeros(3, 1).double(), alive[5:8])
    level = (0.95 * 32 + 24) / (0.95 * 8 + 3)
    values = [
        (0.95 * 20 + 5 * level) / (0.95 * 5 + 5),
        (0.95 * 12 + 24 + 5 * level) / (0.95 * 3 + 3 + 5),
        level,
    ]
    assert critic(torch.tensor(0), torch.arange(3)).tolist() == pytest.approx(values)


def test_a_network_learns_the_values():
    """The values of the best policy of a regulator are quadratic, and known."""
    model = regulator(horizon=6)
    best = inference.soft_values(model)
    policy = cai.LinearGaussianPolicy(model)
    with torch.no_grad():
        K, k, C = best.policy.gains, best.policy.offsets, best.policy.covariance
        policy.gains.copy_(K)
        policy.offsets.copy_(k)
        policy.log_scales.copy_(torch.linalg.cholesky(C).diagonal(dim1=-2, dim2=-1).log())
    torch.manual_seed(0)
    estimate = critic_gradient(model, policy, 200)
    for _ in range(100):
        gradient(estimate, policy)
    s = model.simulate(policy, 500, seed=1).states[:, :-1]
    t = torch.arange(6).expand(500, 6)
    with torch.no_grad():
        off = (best.V(t, s) / model.temperature - estimate.module(t, s)).square().mean(0)
        spread = (best.V(t, s) / model.temperature).var(0)
    assert (off < 0.1 * spread)[:-1].all()


def test_the_critic_lowers_the_noise_and_lambda_lowers_it_further():
    model = regulator(horizon=10)
    policy = cai.LinearGaussianPolicy(model)
    variances = []
    for estimate in (
        score_gradient(model, policy, 50),
        critic_gradient(model, policy, 50),
        critic_gradient(model, policy, 50, lam=0.9),
    ):
        torch.manual_seed(0)
        draws = torch.stack([gradient(estimate, policy) for _ in range(160)])
        variances.append(draws[80:].var(0).sum().item())
    assert variances[2] < 0.9 * variances[1] < 0.9 * 0.7 * variances[0]


@pytest.mark.parametrize("make", [models.ledge, continuous])
def test_a_critic_goes_on_from_its_state(make):
    """What it knows, and what its optimiser does, through a file that holds nothing but tensors."""
    model = make()
    policy = cai.NeuralPolicy(model)
    torch.manual_seed(0)
    one = critic_gradient(model, policy, 10)
    for _ in range(5):
        gradient(one, policy)
    file = io.BytesIO()
    torch.save(one.module.state_dict(), file)
    file.seek(0)
    two = critic_gradient(model, policy, 10)
    two.module.load_state_dict(torch.load(file, weights_only=True))
    slopes = []
    for estimate in (one, two):
        torch.manual_seed(1)
        slopes.append(torch.stack([gradient(estimate, policy) for _ in range(3)]))
    assert torch.equal(*slopes)
    fresh = critic_gradient(model, policy, 10)
    torch.manual_seed(1)
    assert not torch.equal(gradient(fresh, policy), slopes[0][0])


def test_fit_by_a_critic_or_any_function_that_makes_an_estimator():
    model = models.ledge()
    options = {"steps": 120, "samples": 50, "learning_rate": 0.2}
    fitted = inference.fit(model, cai.TabularPolicy(model), estimator="critic", **options)
    assert fitted.estimator == "critic"
    assert fitted.elbo > inference.soft_values(model).elbo - 0.05
    gae = functools.partial(inference.critic_gradient, lam=0.9)
    fitted = inference.fit(model, cai.TabularPolicy(model), estimator=gae, **options)
    assert fitted.estimator == "critic_gradient"
    assert fitted.elbo > inference.soft_values(model).elbo - 0.05

    class Half:
        """A user's own: the exact gradient, by half."""

        def __call__(self, model, policy, samples):
            estimate = exact_gradient(cai.tabulate(model), policy)

            def half():
                loss = estimate()
                policy.logits.grad.mul_(0.5)
                return loss

            return half

    assert inference.fit(model, cai.TabularPolicy(model), estimator=Half()).estimator == "Half"


def test_what_a_critic_cannot_do():
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    for lam in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"lam: expected a number in \[0, 1\]"):
            critic_gradient(model, policy, 10, lam=lam)
    with pytest.raises(ValueError, match="critic: expected a model whose program can be run"):
        critic_gradient(cai.tabulate(model), policy, 10)
    with pytest.raises(ValueError, match='"critic": expected a model whose program can be run'):
        inference.fit(cai.tabulate(model), policy, estimator="critic")
    with pytest.raises(ValueError, match=r"estimator: expected one of .* or a function"):
        inference.fit(model, policy, estimator="actor")


def test_all_dead_teach_nothing():
    for critic in (TabularCritic(models.ledge()), NeuralCritic(continuous())):
        before = copy.deepcopy(critic.state_dict())
        T = 4 if isinstance(critic, TabularCritic) else len(critic.level)
        s = torch.zeros(3, T) if isinstance(critic, TabularCritic) else torch.zeros(3, T, 1)
        critic.learn(s, torch.ones(3, T).double(), torch.zeros(3, T, dtype=torch.bool))
        for name, value in critic.state_dict().items():
            assert torch.equal(value, before[name]) if name != "_extra_state" else True

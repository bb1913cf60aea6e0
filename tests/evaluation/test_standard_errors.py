"""What published numbers promise: advantages by hand, tails of a given size, errors that cover.

Standard errors are held against closed forms: where log-weights are normal with variance σ², the
weights are lognormal, E w = 1, E w² = exp(σ²), and so on.
"""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from examples import scramble
from paths import gradient, trajectories

import cai
from cai import inference, models
from cai.evaluation import importance_weights
from cai.evaluation.bracket import bracket
from cai.evaluation.divergence import along
from cai.evaluation.problem import as_problem
from cai.evaluation.references import References
from cai.inference.gradients.critic import critic_gradient
from cai.inference.optimism.renyi import _estimate
from cai.inference.particles.importance import ImportanceSample
from cai.inference.particles.pareto import pareto_k

SIGMA, N = 0.5, 40_000


def normal_log_weights(n=N, seed=0):
    """log w ~ N(-σ²/2, σ²), so that E w = 1."""
    draws = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return SIGMA * draws - SIGMA**2 / 2


def covers(estimates):
    """Whether errors in units of their standard errors have a spread of about one.

    The spread of 200 of them is one within 1/√400 times three.
    """
    z = np.array([(found - truth) / stderr for found, truth, stderr in estimates])
    return abs(z.std() - 1) < 3 / math.sqrt(2 * len(z)) and abs(z.mean()) < 3.5 / math.sqrt(len(z))


# Generalised advantages.


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("discount", [1.0, 0.7])
def test_generalised_advantages_by_hand(lam, discount, monkeypatch):
    """A_t = Σ_k λ^k δ_{t+k} over four steps, less that of the other trajectory if it is alive."""
    model = models.ledge(horizon=4, discount=discount)
    table, policy = cai.tabulate(model), scramble(cai.TabularPolicy(model))
    S = table.num_states
    v = torch.linspace(-1, 2, 5 * S, dtype=torch.float64).reshape(5, S).sin()
    lives = [True, True, True, discount == 1, discount == 1]
    pair = [
        (1.0, [0, 1, 2, 3, 3], [0, 1, 1, 0], [True] * 5),
        (1.0, [0, 3, 3, 3, 3], [1, 0, 0, 1], lives),
    ]
    monkeypatch.setattr(cai.TrajectoryModel, "simulate", lambda *_: trajectories(model, pair))
    estimate = critic_gradient(model, policy, 2, lam=lam)
    monkeypatch.setattr(estimate.module, "forward", lambda t, s: v[t, s])
    monkeypatch.setattr(estimate.module, "learn", lambda *_: None)
    paths, log_q = trajectories(model, pair), policy.log_probs
    with torch.no_grad():
        advantages = [[0.0] * 4, [0.0] * 4]
        for i, (_, s, a, alive) in enumerate(pair):
            delta = []
            for t in range(4):
                here = table.log_prior[s[t], a[t]] - log_q[t, s[t], a[t]]
                paid = paths.rewards[i, t] / model.temperature + here
                after = v[t + 1, s[t + 1]] if t < 3 else paths.final_rewards[i] / model.temperature
                after = after if alive[t + 1] else 0.0
                delta.append((paid + after - v[t, s[t]]) * alive[t])
            for t in range(4):
                advantages[i][t] = sum(lam**k * delta[t + k] for k in range(4 - t))
    objective = 0.0
    for i, (_, s, a, alive) in enumerate(pair):
        for t in range(4):
            if alive[t]:
                other = advantages[1 - i][t] if pair[1 - i][3][t] else 0.0
                objective += (advantages[i][t] - other) / 2 * log_q[t, s[t], a[t]]
    by_hand = torch.autograd.grad(-objective, policy.logits)[0].flatten()
    assert torch.allclose(gradient(estimate, policy), by_hand, rtol=0, atol=1e-12)


# Pareto k̂.


def zhang_and_stephens(x):
    """The profile estimate as in their paper, (8) and (9), with prior weights of Vehtari et al."""
    x, n = np.sort(x), len(x)
    m = 30 + int(math.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    theta = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quartile)
    k = -np.log1p(-np.outer(theta, x)).mean(1)
    profile = n * (np.log(theta / k) + k - 1)
    share = [1 / np.exp(profile - one).sum() for one in profile]
    shape = np.log1p(-(theta @ share) * x).mean()
    return (n * shape + 5) / (n + 10)


@pytest.mark.parametrize(("n", "tail"), [(25, 5), (100, 20), (225, 45), (400, 60), (10_000, 300)])
def test_the_tail_of_pareto_k(n, tail):
    """min(n/5, 3√n) weights: a fifth up to 225 of them, three times the root from there on."""
    log_w = normal_log_weights(n) * 3
    w = np.sort(np.exp((log_w - log_w.max()).numpy()))
    right, shorter = (zhang_and_stephens(w[-m:] - w[-m - 1]) for m in (tail, tail - 1))
    assert pareto_k(log_w) == pytest.approx(right, abs=1e-9)
    assert abs(right - shorter) > 1e-6


# The bracket of the log evidence.


def test_standard_errors_of_a_bracket_by_hand():
    """Of means over groups and draws, and of a ratio: √Σ (share · (x - upper))²."""
    log_w = torch.tensor([1.0, 2.0, 4.0, 1.0], dtype=torch.float64).log()
    found = bracket(log_w, 2)
    groups = np.log([1.5, 2.5])
    assert found.lower == pytest.approx(groups.mean())
    assert found.lower_stderr == pytest.approx(groups.std(ddof=1) / math.sqrt(2))
    assert found.elbo == pytest.approx(log_w.mean().item())
    assert found.elbo_stderr == pytest.approx(log_w.std().item() / 2)
    upper = (2 * math.log(2) + 4 * math.log(4)) / 8
    away = [0 - upper, math.log(2) - upper, math.log(4) - upper, 0 - upper]
    error = math.hypot(*(w / 8 * x for w, x in zip((1, 2, 4, 1), away, strict=True)))
    assert (found.upper, found.upper_stderr) == (pytest.approx(upper), pytest.approx(error))
    assert found.effective == pytest.approx(64 / 22)


def test_the_error_of_the_estimate_above_is_that_of_lognormal_weights():
    """Σ w log w/Σ w → σ²/2, with variance exp(σ²)(σ² + σ⁴)/n."""
    found = bracket(normal_log_weights(), 100)
    error = math.sqrt(math.exp(SIGMA**2) * (SIGMA**2 + SIGMA**4) / N)
    assert found.upper_stderr == pytest.approx(error, rel=0.05)
    assert found.elbo_stderr == pytest.approx(SIGMA / math.sqrt(N), rel=0.02)
    several = [bracket(normal_log_weights(2000, seed), 10) for seed in range(200)]
    assert covers([(x.upper, SIGMA**2 / 2, x.upper_stderr) for x in several])
    assert covers([(x.elbo, -(SIGMA**2) / 2, x.elbo_stderr) for x in several])
    lower = np.mean([x.lower for x in several])
    assert covers([(x.lower, lower, x.lower_stderr) for x in several])


def drifting(slope):
    """Nothing happens but a cost of one a step, to a start s ~ N(0, 1): V_t(s) = slope · s."""
    return cai.TrajectoryModel(
        initial=dist.Normal(torch.tensor(0.0).double(), 1.0),
        dynamics=lambda s, a: dist.Delta(s + 0 * a),
        reward=-1.0,
        final_reward=lambda s: slope * s,
        action_prior=dist.Normal(0.0, 1.0),
        horizon=3,
    )


def test_the_error_of_the_bound_above_is_that_of_its_starts():
    """log E exp(c s) = c²/2 from 100 000 starts: √((exp(c²) - 1)/n), however many samples."""
    c, model = 0.5, drifting(0.5)

    def bound(samples, seed):
        return inference.evidence_bracket(
            model,
            lambda t, s: model.prior(s),
            samples=samples,
            group_size=2,
            value=lambda t, s: c * s,
            seed=seed,
        )

    error = math.sqrt(math.expm1(c**2) / 100_000)
    for found in (bound(20, 0), bound(200, 0)):
        assert found.kind == "bound"
        assert found.upper_stderr == pytest.approx(error, rel=0.05)
        assert abs(found.upper - c**2 / 2) < 4 * error
    several = [bound(4, seed) for seed in range(20)]
    assert covers([(x.upper, c**2 / 2, x.upper_stderr) for x in several])


def test_errors_of_a_row_add_up_as_of_independent_numbers():
    model = drifting(0.5)
    report = cai.compare(model, {"prior": lambda t, s: model.prior(s)})
    row, between = report["prior"], report.bracket
    for name in ("lower", "upper"):
        error = math.hypot(getattr(between, f"{name}_stderr"), row.elbo_stderr)
        assert getattr(row, f"kl_{name}_stderr") == pytest.approx(error)
        assert getattr(row, f"kl_{name}") == pytest.approx(getattr(between, name) - row.elbo)


# Importance sampling, evaluation and Rényi bounds.


def test_errors_of_importance_sampling():
    """log of a mean weight: √((exp(σ²) - 1)/n). A mean of x = log w: that of the ratio above."""
    log_w = normal_log_weights()
    found = ImportanceSample(None, log_w)
    error = math.sqrt(math.expm1(SIGMA**2) / N)
    assert found.log_evidence_stderr == pytest.approx(error, rel=0.05)
    assert found.effective_fraction == pytest.approx(math.exp(-(SIGMA**2)), rel=0.05)
    ratio = math.sqrt(math.exp(SIGMA**2) * (SIGMA**2 + SIGMA**4) / N)
    assert found.stderr(log_w).item() == pytest.approx(ratio, rel=0.05)
    several = [ImportanceSample(None, normal_log_weights(2000, seed)) for seed in range(200)]
    assert covers([(x.log_evidence, 0.0, x.log_evidence_stderr) for x in several])
    means = [(x.mean(x.log_weights), x.stderr(x.log_weights)) for x in several]
    assert covers([(m.item(), SIGMA**2 / 2, e.item()) for m, e in means])


def one_step(cost):
    """One step: a start s ~ N(0, 1) pays cost · s, an action pays nothing."""
    return cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Delta(s + 0 * a),
        reward=lambda s, a: cost * s + 0 * a,
        action_prior=dist.Normal(0.0, 1.0),
        horizon=1,
    )


def pushed(by):
    return lambda t, s: dist.Normal(by + 0 * s, 1.0)


def test_errors_of_a_simulated_evaluation():
    """log w = c s - (m a - m²/2) with a ~ N(m, 1): N(-m²/2, c² + m²); -log q has variance ½."""
    c, m, n = 0.6, 0.8, 20_000
    found = cai.evaluate(one_step(c), pushed(m), samples=n)
    assert found.elbo_stderr == pytest.approx(math.hypot(c, m) / math.sqrt(n), rel=0.03)
    assert found.expected_return_stderr == pytest.approx(c / math.sqrt(n), rel=0.03)
    assert found.entropy_stderr == pytest.approx(math.sqrt(0.5 / n), rel=0.05)
    model = one_step(c)
    several = [cai.evaluate(model, pushed(m), samples=300, seed=seed) for seed in range(60)]
    assert covers([(x.elbo, -(m**2) / 2, x.elbo_stderr) for x in several])
    assert covers([(x.expected_return, 0.0, x.expected_return_stderr) for x in several])
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert covers([(x.entropy, entropy, x.entropy_stderr) for x in several])


@pytest.mark.parametrize("eta", [-0.5, 0.0, 0.5, 1.0])
def test_errors_of_a_simulated_renyi_bound(eta):
    """R_η = -m²/2 + η(c² + m²)/2, with variance (exp(η²(c² + m²)) - 1)/(η² n)."""
    c, m, n = 0.3, 0.4, 20_000
    variance = c**2 + m**2
    spread = variance if eta == 0 else math.expm1(eta**2 * variance) / eta**2
    found = inference.renyi_bound(one_step(c), pushed(m), eta, samples=n)
    assert found.stderr == pytest.approx(math.sqrt(spread / n), rel=0.05)
    truth = -(m**2) / 2 + eta * variance / 2
    assert abs(found.bound - truth) < 4 * found.stderr
    several = [_estimate(normal_log_weights(2000, seed), eta) for seed in range(200)]
    truth = (eta - 1) * SIGMA**2 / 2
    assert covers([(x.bound, truth, x.stderr) for x in several])


def test_errors_of_a_simulated_split():
    """KL of the dynamics is an average over trajectories, and the rest is what the actions cost."""
    model = models.ledge(horizon=6)
    policy = scramble(cai.TabularPolicy(model))
    exact = inference.posterior(model)
    known = References(as_problem(model), exact)
    right = cai.compare(model, {"policy": policy})["policy"]

    def split(seed):
        paths = model.simulate(policy, 500, seed=seed)
        return along(known, paths, importance_weights.scores(model, policy, paths).log_weights)

    paths = model.simulate(policy, 500, seed=0)
    log_w = importance_weights.scores(model, policy, paths).log_weights
    table, luck = exact.table, torch.zeros(500, dtype=torch.float64)
    for t in range(6):
        true, tilted = table.dense(table.log_dynamics), exact.dynamics(t)
        lost = torch.where(true > 0, true * (true / tilted).log(), 0.0).sum(-1)
        luck += lost[paths.states[:, t], paths.actions[:, t]]
    found = split(0)
    assert found.dynamics == pytest.approx(luck.mean().item())
    for x, error in (
        (luck, found.dynamics_stderr),
        (log_w, found.total_stderr),
        (log_w + luck, found.actions_stderr),
    ):
        assert error == pytest.approx(x.std().item() / 500**0.5)
    several = [split(seed) for seed in range(60)]
    assert covers([(x.dynamics, right.kl_dynamics, x.dynamics_stderr) for x in several])
    assert covers([(x.actions, right.kl_actions, x.actions_stderr) for x in several])
    assert covers([(x.total, right.kl, x.total_stderr) for x in several])


def test_the_evidence_of_particles_is_unbiased():
    """Not its logarithm: the mean of exp(log p̂ - log p) is one, resampled or not."""
    model = models.ledge(horizon=4)
    exact = inference.posterior(model).bound
    for threshold in (0.0, 1.0):
        runs = [
            inference.smc(model, 30, seed=seed, ess_threshold=threshold).log_evidence - exact
            for seed in range(60)
        ]
        ratio, error = importance_weights.mean(torch.tensor(runs).double().exp())
        assert abs(ratio - 1) < 4 * error
        assert np.mean(runs) < 0

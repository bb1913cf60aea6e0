"""Local models of the return: against exact densities of linear-Gaussian policies."""

import dataclasses
import json
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models
from cai.inference.local_models._concave_search import LocalSearch, scored
from cai.inference.local_models._expansion import Differentiation, Unrolled, expansion

A = torch.tensor([[1.0, 0.3], [-0.1, 0.9]], dtype=torch.float64)
B = torch.tensor([[0.2], [1.0]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
TRUTH = [0.8, 0.5, 0.7]


def plant(noise=None, T=5, prior=True, **more):
    """A linear-Gaussian model of two numbers and one action, with a final cost."""
    options = {
        "horizon": T,
        "noise": noise,
        "Q_final": 0.6 * np.eye(2),
        "drift": [0.1, -0.2],
        "initial_mean": [1.0, -1.0],
        "initial_covariance": 0.5 * np.eye(2),
        "temperature": 0.7,
    }
    if prior:
        options["action_prior"] = dist.MultivariateNormal(
            torch.tensor([0.2], dtype=torch.float64), 1.5 * torch.eye(1, dtype=torch.float64)
        )
    return models.linear_gaussian(A, B, **(options | more))


def costs():
    """Three features, of which the last is neither of s nor of a alone."""
    return cai.LinearReward(
        {
            "first": lambda s, a: -0.5 * s[..., 0].square() + 0.3 * s[..., 1],
            "effort": lambda s, a: -0.5 * a.square().sum(-1),
            "both": lambda s, a: -0.5 * (s[..., 1] - a[..., 0]).square(),
        }
    )


def paid(model, weights):
    """The same with the matrices of the weights, written out by hand."""
    x, effort, both = weights
    zero = torch.zeros(2, 2).double()
    Q, N, q = zero.clone(), torch.zeros(2, 1).double(), torch.zeros(2).double()
    Q[0, 0], Q[1, 1], q[1], N[1, 0] = x, both, 0.3 * x, -both
    R = torch.tensor([[effort + both]], dtype=torch.float64)
    return dataclasses.replace(model, Q=Q, N=N, R=R, q=q)


def seen_in(model, n=6, seed=0, weights=TRUTH):
    return model.simulate(inference.soft_values(paid(model, weights)).policy, n, seed=seed)


def log_policy(policy, paths):
    """(n,), Σ log π_t(a_t|s_t)."""
    T = paths.actions.shape[1]
    return sum(policy(t, paths.states[:, t]).log_prob(paths.actions[:, t]) for t in range(T))


def approximate(model, paths, weights, over="actions"):
    local = expansion(Unrolled(model, paths, costs(), over != "actions"))
    return scored(local, torch.tensor(weights, dtype=torch.float64))


@pytest.mark.parametrize("prior", [True, False])
def test_without_noise_it_is_the_density_of_the_exact_policy(prior):
    model = plant(prior=prior)
    paths = seen_in(model)
    for weights in (TRUTH, [0.1, 2.0, 1.5], [1.5, 0.3, 0.0]):
        expected = log_policy(inference.soft_values(paid(model, weights)).policy, paths)
        found = approximate(model, paths, weights).values
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_its_slope_and_curvature_are_those_of_differences():
    model = plant()
    paths, at, h = seen_in(model), torch.tensor(TRUTH).double(), 1e-4
    local = expansion(Unrolled(model, paths, costs(), False))
    found = scored(local, at)
    for k in range(3):
        step = h * torch.eye(3)[k].double()
        up, down = scored(local, at + step), scored(local, at - step)
        slope = (up.values - down.values).sum() / (2 * h)
        assert float(found.slope[k]) == pytest.approx(float(slope), rel=1e-6)
        curve = -(up.slope - down.slope) / (2 * h)
        torch.testing.assert_close(found.information[k], curve, rtol=1e-6, atol=1e-8)


def test_with_noise_it_is_hindsight_and_not_the_causal_likelihood():
    """Who knew all noise w in advance has the policy of the drifts c + w, one by one."""
    model = plant(noise=0.3 * EYE)
    paths = seen_in(model)
    found = approximate(model, paths, TRUTH).values
    exact = paid(model, TRUTH)
    for i in range(6):
        s, a = paths.states[i], paths.actions[i]
        w = s[1:] - s[:-1] @ A.T - a @ B.T
        knowing = dataclasses.replace(exact, drift=w, noise=torch.zeros(2, 2).double())
        one = dataclasses.replace(paths, states=s[None], actions=a[None])
        expected = log_policy(inference.soft_values(knowing).policy, one)
        assert float(found[i]) == pytest.approx(float(expected), abs=1e-8)
    causal = log_policy(inference.soft_values(exact).policy, paths)
    assert (found - causal).abs().max() > 0.05


@pytest.mark.parametrize(
    "noise", [0.3 * EYE, torch.diag(torch.tensor([0.0, 0.4], dtype=torch.float64))]
)
def test_over_actions_and_noise_it_is_the_posterior(noise):
    """Maximum entropy: log p(a, s'|O) at optimism 1, less the Jacobian of the noise."""
    model = plant(noise=noise)
    paths = seen_in(model)
    found = approximate(model, paths, TRUTH, "actions and noise").values
    solution = inference.soft_values(paid(model, TRUTH), optimism=1.0)
    expected = log_policy(solution.policy, paths)
    for t in range(5):
        s, a, after = paths.states[:, t], paths.actions[:, t], paths.states[:, t + 1]
        if noise[0, 0]:
            expected = expected + solution.transitions.at(t)(s, a).log_prob(after)
        else:  # along the only direction with noise
            q = solution.transitions.at(t)
            off = (after - q.mean(s, a))[:, 1]
            var = q.W[1, 1]
            expected = expected - 0.5 * (off**2 / var + (2 * math.pi * var).log())
    scale = 0.5 * noise.diagonal()[noise.diagonal() > 0].log().sum()
    torch.testing.assert_close(found, expected + 5 * scale, atol=1e-8, rtol=0)


def test_weights_are_found_again_and_the_maximum_is_that_of_the_exact_likelihood():
    model = plant()
    errors = []
    for seed in range(3):
        paths = seen_in(model, 400, seed)
        found = inference.laplace_reward(model, paths, costs(), progress=False)
        assert found.converged
        psi = np.array([*found.weights.values()])
        std = found.information.inverse().diagonal().sqrt().numpy()
        errors.append((psi - TRUTH) / std)
        total = log_policy(found.policy, paths).sum()
        assert float(total) == pytest.approx(float(found.log_likelihoods.sum()), abs=1e-6)
        for step in 0.02 * np.vstack([np.eye(3), -np.eye(3)]):
            other = inference.soft_values(paid(model, psi + step)).policy
            assert log_policy(other, paths).sum() < total
    assert np.abs(errors).max() < 4
    assert 0.3 < np.square(errors).mean() < 3


def test_somebody_who_cannot_know_the_noise_is_misread_in_hindsight():
    """With much noise the weights of causal demonstrations are not those of hindsight."""
    model = plant(noise=2.0 * EYE)
    paths = seen_in(model, 500)
    hindsight = inference.laplace_reward(model, paths, costs(), progress=False)
    assert "hindsight" in str(hindsight)
    std = hindsight.information.inverse().diagonal().sqrt().numpy()
    off = (np.array([*hindsight.weights.values()]) - TRUTH) / std
    assert np.abs(off).max() > 5
    both = inference.laplace_reward(model, paths, costs(), over="actions and noise", progress=False)
    assert "hindsight" not in str(both)
    assert both.over == "actions and noise"
    assert np.abs(np.array([*both.weights.values()]) - TRUTH).max() > 0.1  # luck is no choice


def rod(T=8):
    """A pendulum without bounds that is felt: its torques are small, and cost something."""
    model = models.pendulum(horizon=T, noise=0.0, max_torque=2.0)
    return dataclasses.replace(
        model,
        action_prior=dist.Normal(torch.zeros(1).double(), 0.3).to_event(1),
        initial=dist.Normal(torch.tensor([0.4, 0.0]).double(), 0.05).to_event(1),
    )


def test_a_pendulum_whose_demonstrator_is_a_local_model_of_itself():
    """Plans drawn by Newton's method and the Gaussian around the best one are read again."""
    model, truth = rod(), torch.tensor([1.5, 0.2]).double()
    reward = cai.LinearReward(
        {
            "angle": lambda s, a: s[..., 0].cos() - 1,
            "speed": lambda s, a: -0.5 * s[..., 1].square(),
        }
    )
    reward = dataclasses.replace(reward, offset=lambda s, a: -20 * a.square().sum(-1))
    rng = torch.Generator().manual_seed(0)
    n, T = 60, 8
    start = torch.tensor([0.4, 0.0]) + 0.05 * torch.randn(n, 2, generator=rng)
    a = torch.zeros(n, T, 1, dtype=torch.float64)

    def path(actions):
        states = [start.double()]
        for t in range(T):
            states.append(model.dynamics(states[-1], actions[:, t]).v)
        alive = torch.ones(n, T + 1, dtype=torch.bool)
        return model.paid(torch.stack(states, 1), actions, alive)

    for _ in range(6):
        local = expansion(Unrolled(model, path(a), reward, False))
        g = torch.einsum("k,nkd->nd", truth, local.slopes[:, :-1]) + local.slopes[:, -1]
        M = torch.einsum("k,nkab->nab", truth, local.curvatures[:, :-1]) + local.curvatures[:, -1]
        a = a + torch.linalg.solve(M, g).unsqueeze(-1)
    assert g.abs().max() < 1e-6
    root = torch.linalg.cholesky(M)
    z = torch.randn(n, T, 1, generator=rng, dtype=torch.float64)
    drawn = a + torch.linalg.solve_triangular(root.mT, z, upper=True)
    assert drawn.abs().max() < 2
    found = inference.laplace_reward(model, path(drawn), reward, progress=False)
    std = found.information.inverse().diagonal().sqrt()
    off = (torch.tensor([*found.weights.values()]) - truth) / std
    assert off.abs().max() < 3.5
    assert found.model.horizon == T
    assert "as far as returns are quadratic" in found.converges_to


def test_a_start_is_looked_for_where_zero_weights_have_none():
    """A flat prior: only the cost of effort makes the return concave."""
    model = plant(prior=False, Q_final=None)
    paths = seen_in(model, 40)
    local = expansion(Unrolled(model, paths, costs(), False))
    assert scored(local, torch.zeros(3).double()) is None
    found = inference.laplace_reward(model, paths, costs(), progress=False)
    again = inference.laplace_reward(model, paths, costs(), start=[1.0, 9.0, 2.0], progress=False)
    assert found.converged
    np.testing.assert_allclose([*found.weights.values()], [*again.weights.values()], rtol=1e-5)
    search = LocalSearch(local, None, 1)
    assert scored(local, search.weights) is not None


def test_what_is_told_of_it():
    model = plant()
    paths = seen_in(model, 10)
    reward = costs()
    named = dict(reward.features) | {"nothing": lambda s, a: torch.ones(s.shape[:-1])}
    found = inference.laplace_reward(model, paths, cai.LinearReward(named), progress=False)
    assert "Not identified, alone or together: nothing." in str(found)
    data = json.loads(found.to_json())
    assert data["log_likelihoods"] == found.log_likelihoods.tolist()
    assert (found.history.diff() > 0).all()
    total = float(found.log_likelihoods.sum())
    assert f"{total:.2f} nats" in str(found)
    expected = -0.5 * paths.actions.square().sum((1, 2)).mean()
    assert float(found.observed[1]) == pytest.approx(float(expected))
    assert found.expected.isnan().all()
    assert (found.demonstrations, found.actions) == (10, 50)


def test_a_reward_that_is_not_quadratic_leaves_a_program():
    model = plant()
    paths = seen_in(model, 30)
    bowl = {"bowl": lambda s, a: -(1 + s.square().sum(-1)).sqrt()}
    found = inference.laplace_reward(model, paths, cai.LinearReward(bowl), progress=False)
    assert not isinstance(found.model, cai.LinearGaussian)
    s, a = paths.states[:, 0], paths.actions[:, 0]
    expected = found.weights["bowl"] * bowl["bowl"](s, a)
    torch.testing.assert_close(found.model.rewards(s, a), expected)


def test_perfect_demonstrations_have_no_finite_weights():
    """Who never errs is the more probable the larger the rewards are, and it is said."""
    model = plant(prior=False, Q_final=None)
    exact = inference.soft_values(paid(model, TRUTH))
    best = model.simulate(lambda t, s: dist.Delta(exact.policy(t, s).mean, event_dim=1), 5, seed=0)
    found = inference.laplace_reward(model, best, costs(), progress=False)
    assert not found.converged
    assert "grow without end" in found.reason


def test_an_interrupt_returns_the_best_so_far(monkeypatch):
    model = plant()
    step, calls = LocalSearch.step, []

    def interrupted(self):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(LocalSearch, "step", interrupted)
    found = inference.laplace_reward(model, seen_in(model), costs(), progress=False)
    assert "interrupted" in found.reason
    assert found.log_likelihoods.sum() > found.history[0]


def test_derivatives_go_on_from_their_file(tmp_path, monkeypatch):
    model, file = plant(), tmp_path / "derivatives.pt"
    seen, step, calls = seen_in(model), Differentiation.step, []
    whole = inference.laplace_reward(model, seen, costs(), progress=False)

    def interrupted(self):
        calls.append(1)
        if len(calls) == 13:  # within the third of four features, of five unknowns each
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(Differentiation, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        inference.laplace_reward(model, seen, costs(), checkpoint=file, progress=False)
    rest = inference.laplace_reward(model, seen, costs(), checkpoint=file, progress=False)
    assert len(calls) == 13 + 10  # the two that were whole are not computed again
    assert rest.weights == whole.weights
    assert torch.equal(rest.log_likelihoods, whole.log_likelihoods)
    again = inference.laplace_reward(model, seen, costs(), checkpoint=file, progress=False)
    assert len(calls) == 23
    assert again.weights == whole.weights
    other = cai.LinearReward({"effort": lambda s, a: -a.square().sum(-1)})
    with pytest.raises(ValueError, match="checkpoint"):
        inference.laplace_reward(model, seen, other, checkpoint=file, progress=False)


def test_what_does_not_fit_is_refused():
    model, reward = plant(), costs()
    paths = seen_in(model)

    def refused(match, *arguments, **options):
        with pytest.raises(ValueError, match=match):
            inference.laplace_reward(*arguments, progress=False, **options)

    refused("over", model, paths, reward, over="noise")
    refused("reward: expected a LinearReward", model, paths, cai.TabularReward())
    refused("demonstrations: expected Trajectories", model, 3, reward)
    refused("model: expected a program", cai.tabulate(models.ledge()), paths, reward)
    refused("start: expected 3 weights", model, paths, reward, start=[1.0])
    refused("start: expected 3 weights", model, paths, reward, start=[1.0, torch.nan, 1.0])
    refused("discount", plant(discount=0.9), paths, reward)
    refused("demonstrations, states: expected 8", plant(T=7), paths, reward)
    refused("real numbers", models.ledge(horizon=4), ledge_paths(), reward)
    moved = dataclasses.replace(paths, states=paths.states + torch.arange(6).view(1, 6, 1))
    refused(r"demonstration 0, step 1: expected a state that the dynamics", model, moved, reward)
    gain = cai.LinearReward({"x": lambda s, a: s[..., 0]}, offset=lambda s, a: a.square().sum(-1))
    refused("weights: expected weights at which the Hessian.*such as", model, paths, gain)
    refused("start: expected weights at which", model, paths, reward, start=[0.0, -99.0, 0.0])
    wrong = cai.LinearReward({"x": lambda s, a: s})
    refused(r"features\['x'\]: expected one number", model, paths, wrong)
    table = cai.LinearReward({"x": torch.ones(2, 2)})
    refused(r"features\['x'\]: expected a function", model, paths, table)
    ended = dataclasses.replace(paths, alive=torch.zeros(6, 6, dtype=torch.bool))
    refused("demonstration 0: expected one that lasts", model, ended, reward)


def ledge_paths():
    model = models.ledge()
    return model.simulate(lambda t, s: model.prior(s), 2, seed=0)

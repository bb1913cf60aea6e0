"""What a policy is worth: by tables, by paths, and by simulation with its standard error."""

import math

import oracles
import pyro.distributions as dist
import pytest
import torch
from examples import continuous
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.evaluation import importance_weights


@given(
    make=st.sampled_from(oracles.KINDS),
    seed=st.integers(0, 10**6),
    discount=st.sampled_from([1.0, 0.8]),
)
def test_exactly_as_by_all_paths(make, seed, discount):
    problem = make(seed, discount=discount)
    model = problem.latent_model()
    policy = inference.soft_values(problem.model(), 2.0).policy
    q = policy.log_probs.exp().numpy()
    found = cai.evaluate(model, policy)
    elbo, expected_return = oracles.elbo(problem, q)
    assert found.elbo == pytest.approx(elbo, abs=1e-11)
    assert found.expected_return == pytest.approx(expected_return, abs=1e-11)
    entropy = 0.0
    states = torch.zeros(problem.T + 1, 3, dtype=torch.float64)
    for path in oracles.paths(problem, policy=q):
        for t, s in enumerate(path.states):
            if path.alive_at(t):
                states[t, s] += path.probability
        for t, a in enumerate(path.actions):
            entropy -= path.probability * math.log(q[t][path.states[t]][a])
    assert found.entropy == pytest.approx(entropy, abs=1e-11)
    torch.testing.assert_close(found.states, states, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.state_actions.sum(-1), states[:-1], rtol=0, atol=1e-12)
    assert found.elbo_stderr is None


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_simulation_within_four_standard_errors(discount):
    model = models.gridworld("bridge", horizon=10, discount=discount, pit_reward=-5.0)
    policy = inference.soft_values(model).policy
    exact = cai.evaluate(model, policy)
    found = cai.evaluate(model, policy, samples=4000, seed=2)
    for name in ("elbo", "expected_return", "entropy"):
        error = getattr(found, f"{name}_stderr")
        assert 0 < error < 0.2
        assert abs(getattr(found, name) - getattr(exact, name)) < 4 * error
    torch.testing.assert_close(found.states, exact.states, rtol=0, atol=0.05)
    torch.testing.assert_close(found.state_actions, exact.state_actions, rtol=0, atol=0.05)


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_standard_errors_by_all_paths(discount):
    """The error of a mean of n is that of one path over √n, one path's by summing over all."""
    problem, n = oracles.random_problem(3, discount=discount), 10_000
    model = problem.model()
    policy = inference.soft_values(model, 2.0).policy
    q = policy.log_probs.exp().numpy()
    ways = list(oracles.paths(problem, policy=q))
    x = {
        "elbo": [w.reward / problem.temperature - oracles.log_ratio(problem, w, q) for w in ways],
        "expected_return": [w.reward for w in ways],
        "entropy": [
            -sum(math.log(q[t][w.states[t]][a]) for t, a in enumerate(w.actions)) for w in ways
        ],
    }
    found = cai.evaluate(model, policy, samples=n, seed=1)
    assert found.log_weights.shape == (n,)
    for name, values in x.items():
        one = oracles.spread(list(zip((w.probability for w in ways), values, strict=True)))
        # The spread of n numbers errs by a percent or two itself, by their kurtosis.
        assert getattr(found, f"{name}_stderr") == pytest.approx(one / n**0.5, rel=0.08)


def test_a_gaussian_policy_in_closed_form():
    """s' = s + a + noise, r = -a: E[return] = -Tμ, and KL to the prior in closed form."""
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1),
        reward=lambda s, a: -a,
        action_prior=dist.Normal(0.0, 1.0),
        horizon=5,
        temperature=2.0,
    )
    policy = lambda t, s: dist.Normal(torch.full(s.shape, 0.5), 0.7)  # noqa: E731
    found = cai.evaluate(model, policy, seed=0)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(0.5, 0.7), torch.distributions.Normal(0.0, 1.0)
    )
    assert found.states is None
    assert abs(found.expected_return + 2.5) < 4 * found.expected_return_stderr
    assert abs(found.elbo - (-1.25 - 5 * kl.item())) < 4 * found.elbo_stderr
    entropy = 5 * torch.distributions.Normal(0.5, 0.7).entropy().item()
    assert abs(found.entropy - entropy) < 4 * found.entropy_stderr
    again = cai.evaluate(model, policy, seed=0)
    assert found.elbo == again.elbo


def test_continuous_models_are_simulated():
    model = continuous(horizon=3)
    found = cai.evaluate(model, cai.NeuralPolicy(model), samples=200)
    assert found.elbo_stderr > 0
    assert found.state_actions is None


def test_a_policy_that_does_what_is_forbidden_is_worth_nothing():
    problem = oracles.random_problem(1, forbidden=0.9)
    uniform = lambda t, s: dist.Categorical(torch.ones(2))  # noqa: E731
    found = cai.evaluate(problem.model(), uniform)
    assert found.elbo == -math.inf
    assert math.isfinite(found.expected_return)


def test_a_reward_of_minus_infinity_counts_where_it_is_met():
    r = torch.tensor([[0.0, -torch.inf]])
    model = models.tabular([[[1.0], [1.0]]], r, horizon=2)
    careful = lambda t, s: dist.Categorical(torch.tensor([1.0, 0.0]))  # noqa: E731
    assert cai.evaluate(model, careful).elbo == pytest.approx(-2 * math.log(2))
    assert cai.evaluate(model, careful).expected_return == 0
    assert cai.evaluate(model, cai.TabularPolicy(model)).expected_return == -math.inf


def test_tables_are_not_simulated():
    model = models.ledge()
    with pytest.raises(ValueError, match="samples: a table is evaluated exactly"):
        cai.evaluate(cai.tabulate(model), cai.TabularPolicy(model), samples=10)


def test_a_table_for_one_step_is_not_stretched_to_four():
    policy = cai.TabularPolicy(models.ledge(horizon=1))
    with pytest.raises(ValueError, match=r"a table of shape \[1, 5, 2\] does not fit .* 4 steps"):
        cai.evaluate(models.ledge(horizon=4), policy)


def test_one_draw_has_no_standard_error():
    model = models.ledge()
    found = cai.evaluate(model, cai.TabularPolicy(model), samples=1)
    assert found.elbo_stderr == found.expected_return_stderr == found.entropy_stderr == math.inf


@pytest.mark.parametrize("discount", [1.0, 0.7])
def test_scores_kept_while_simulating_are_those_of_a_second_look(discount):
    model = oracles.random_problem(3, discount=discount).model()
    policy = cai.RecurrentPolicy(model)
    kept = model.simulate(policy, 200, seed=1, scored=True)
    plain = model.simulate(policy, 200, seed=1)
    assert plain.log_policy is None
    assert torch.equal(kept.actions, plain.actions)
    one, two = (importance_weights.scores(model, policy, paths) for paths in (kept, plain))
    torch.testing.assert_close(one.log_policy, two.log_policy)
    torch.testing.assert_close(one.log_weights, two.log_weights)

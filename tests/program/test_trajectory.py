"""The program itself: its sites, its scores, its guide, and plain Pyro inference on it."""

import copy
import dataclasses
import math

import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import continuous, sites
from pyro import poutine
from pyro.infer import SVI, Importance, Trace_ELBO, infer_discrete

import cai
from cai import inference, models
from cai.distributions.optimality import Optimality


def test_sites_in_the_order_of_the_trajectory():
    _, names = sites(models.ledge(horizon=2))
    step = ["a_{0}", "t{0}/gives_way", "s_{1}", "o_{0}"]
    assert names == ["s_0"] + [site.format(t, t + 1) for t in range(2) for site in step]


def test_sites_with_a_discount_and_a_final_reward():
    model = dataclasses.replace(
        models.lottery(horizon=2, discount=0.5), final_reward=lambda s: -s.double()
    )
    _, names = sites(model)
    assert names[-6:] == ["a_1", "t1/wins", "s_2", "o_1", "alive_2", "o_2"]


def test_the_guide_has_the_same_sites_and_no_factors():
    """No pyro.factor in a guide, where it would need has_rsample: only what the model draws."""
    model = models.lottery(horizon=3, discount=0.9)
    trace, names = sites(model.rollout(cai.TabularPolicy(model)))
    _, of_model = sites(model)
    assert names == [name for name in of_model if not name.startswith("o_")]
    assert not any(trace.nodes[name]["is_observed"] for name in names)


@pytest.mark.parametrize("optimality", ["factor", "bernoulli"])
def test_observed_values_are_scalars(optimality):
    """A batched observation would claim the enumeration dimensions of its neighbours."""
    model = dataclasses.replace(models.ledge(horizon=2), optimality=optimality)
    with pyro.plate("particles", 5):
        trace, _ = sites(model)
    assert trace.nodes["o_0"]["value"].shape == ()
    trace.compute_log_prob()
    assert trace.nodes["o_0"]["log_prob"].shape == (5,)


@pytest.mark.parametrize("optimality", ["factor", "bernoulli"])
def test_a_trajectory_scores_its_rewards(optimality):
    """log p(τ, O) - log p(τ) = Σ rewards / α, with final and arrival rewards."""
    model = dataclasses.replace(
        models.ledge(horizon=4, temperature=0.5),
        optimality=optimality,
        final_reward=lambda s: -0.25 * s,
    )
    for seed in range(5):
        pyro.set_rng_seed(seed)
        trace, _ = sites(model)
        trace.compute_log_prob()
        value = {name: site["value"] for name, site in trace.nodes.items() if "value" in site}
        factors = sum(trace.nodes[f"o_{t}"]["log_prob"].item() for t in range(5))
        expected = -0.25 * value["s_4"].item()
        for t in range(4):
            step = value[f"s_{t}"], value[f"a_{t}"], value[f"s_{t + 1}"]
            expected += model.rewards(*step[:2]).item() + model.arrival_rewards(*step).item()
        assert factors == pytest.approx(expected / 0.5, abs=1e-6)


def test_optimality_can_be_left_unobserved():
    """As a Bernoulli O_t can be sampled, and its two outcomes sum to one."""
    d = Optimality(torch.tensor([-0.1, -3.0, 0.0, -math.inf]).double())
    both = d.log_prob(torch.ones(4)).exp() + d.log_prob(torch.zeros(4)).exp()
    assert both.tolist() == pytest.approx([1] * 4)
    assert d.sample((2000,)).mean(0).tolist() == pytest.approx(
        [math.exp(-0.1), math.exp(-3), 1, 0], abs=0.03
    )
    model = dataclasses.replace(models.ledge(), optimality="bernoulli")
    trace, _ = sites(poutine.uncondition(model))
    assert trace.nodes["o_0"]["value"].item() in (0, 1)


def test_simulated_frequencies_are_the_exact_occupancies():
    model = models.gridworld("bridge", horizon=8, slip=0.3, wind=0.1, discount=0.9)
    policy = inference.posterior(model).policy
    paths = model.simulate(policy, 20_000, seed=1)
    exact = cai.evaluate(model, policy)
    alive = paths.alive.double().mean(0)
    torch.testing.assert_close(alive, exact.states.sum(-1), rtol=0, atol=0.02)
    for t in (0, 3, 8):
        seen = torch.bincount(paths.states[:, t][paths.alive[:, t]], minlength=len(exact.states[t]))
        torch.testing.assert_close(seen / 20_000, exact.states[t].float(), rtol=0, atol=0.02)
    assert paths.returns.mean().item() == pytest.approx(exact.expected_return, abs=0.5)
    assert (paths.rewards[~paths.alive[:, :-1]] == 0).all()


def test_every_trajectory_has_latents_of_its_own():
    """A latent without a batch shape is drawn once for each trajectory, not once for all."""
    model = models.ledge(horizon=1)
    paths = model.simulate(lambda t, s: dist.Categorical(torch.tensor([1.0, 0.0])), 200, seed=0)
    landed = paths.states[:, 1]
    assert {3, 4} == set(landed.tolist())


def test_simulation_is_seeded_and_leaves_the_generator_alone():
    model, policy = models.ledge(), cai.TabularPolicy(models.ledge())
    state = torch.random.get_rng_state()
    one, two, other = (model.simulate(policy, 50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one.states, two.states)
    assert not torch.equal(one.states, other.states)
    assert not torch.equal(model.simulate(policy, 50).states, model.simulate(policy, 50).states)


def test_simulation_and_evaluation_leave_the_parameter_store_alone():
    model = models.ledge()
    model.simulate(cai.TabularPolicy(model), 10)
    cai.evaluate(model, cai.NeuralPolicy(model), samples=10)
    assert len(pyro.get_param_store()) == 0


def test_shapes_of_continuous_trajectories():
    model = continuous()
    paths = model.simulate(cai.NeuralPolicy(model), 7, seed=0)
    assert paths.states.shape == (7, 6, 2)
    assert paths.actions.shape == (7, 5)
    assert paths.rewards.shape == (7, 5)
    assert paths.returns.shape == (7,)
    assert paths.states.std(0).min() > 0.01


def test_the_dead_follow_the_prior_and_earn_nothing():
    """Also with continuous actions, where a mixture must say so."""
    model = continuous(horizon=6, discount=0.5, final_reward=lambda s: s[..., 0] - 100)

    def policy(t, s):
        return dist.Normal(torch.full(s.shape[:-1], 50.0), 0.1)

    paths = model.simulate(policy, 300, seed=0)
    before = paths.alive[:, :-1]
    assert paths.actions[before].min() > 40
    assert paths.actions[~before].max() < 6
    assert (paths.rewards[~before] == 0).all()
    assert (paths.final_rewards == 0).eq(~paths.alive[:, -1]).all()
    assert paths.alive[:, 1].double().mean().item() == pytest.approx(0.5, abs=0.1)
    assert not (paths.alive[:, 1:] & ~paths.alive[:, :-1]).any()


def test_the_dead_owe_no_infinite_debt():
    """0 · (-inf) would be NaN: a ghost in a state of reward -inf earns nothing."""
    P = torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]])
    model = models.tabular(P, [[0.0], [-math.inf]], horizon=3, discount=0.5)
    exact = inference.posterior(model)
    assert inference.enumeration(model).log_evidence == pytest.approx(exact.bound, abs=1e-12)
    paths = model.simulate(lambda t, s: model.prior(s), 500, seed=0)
    assert not paths.returns.isnan().any()
    assert {0.0, -math.inf} == set(paths.returns.tolist())


def test_particles_in_parallel():
    """Plain Pyro vectorises particles with a plate outside; ELBOs agree with the exact one."""
    for model in (models.ledge(), models.lottery(chance=0.3, prize=2.0, discount=0.8)):
        policy = cai.TabularPolicy(model)
        elbo = Trace_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=0)
        value = -elbo.loss(model, model.rollout(policy))
        exact = cai.evaluate(model, policy)
        assert value == pytest.approx(exact.elbo, abs=0.1)


def test_plain_svi_reaches_the_best_guide_on_the_ledge():
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    svi = SVI(
        model,
        model.rollout(policy),
        pyro.optim.Adam({"lr": 0.05}),
        Trace_ELBO(num_particles=50, vectorize_particles=True, max_plate_nesting=0),
    )
    for _ in range(150):
        svi.step()
    best = inference.soft_values(model).elbo
    assert best - cai.evaluate(model, policy).elbo == pytest.approx(0, abs=0.1)
    assert best - cai.evaluate(model, cai.TabularPolicy(model)).elbo > 0.1


def test_two_policies_do_not_share_parameters():
    """Pyro's store is global; under one name the second policy would never move."""
    model = models.ledge()
    first, second = cai.TabularPolicy(model), cai.TabularPolicy(model)
    for policy in (first, second):
        svi = SVI(model, model.rollout(policy), pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        for _ in range(5):
            svi.step()
        assert policy.logits.abs().max() > 0
    assert not torch.equal(first.logits, second.logits)
    names = list(pyro.get_param_store())
    assert len(names) == len(set(names)) == 2
    poutine.trace(model.rollout(first)).get_trace()
    assert list(pyro.get_param_store()) == names


def test_importance_sampling_finds_the_evidence():
    model = models.ledge()
    guide = model.rollout(inference.soft_values(model).policy)
    found = Importance(model, guide, num_samples=800).run()
    assert found.get_log_normalizer().item() == pytest.approx(
        inference.posterior(model).bound, abs=0.1
    )


def test_infer_discrete_draws_from_the_posterior():
    """On the collapsed model; the frequencies are the exact marginals."""
    model = cai.collapse(models.ledge())
    exact = inference.posterior(model)

    @pyro.infer.config_enumerate
    def many():
        with pyro.plate("draws", 2000):
            model()

    decoded = infer_discrete(many, first_available_dim=-2, temperature=1)
    trace = poutine.trace(decoded).get_trace()
    for t in range(5):
        states = trace.nodes[f"s_{t}"]["value"].expand(2000)
        seen = torch.bincount(states, minlength=5) / 2000
        torch.testing.assert_close(seen, exact.states[t].float(), rtol=0, atol=0.05)


def test_a_prior_that_depends_on_the_state():
    problem = oracles.random_problem(2)
    model = problem.model()
    log_prior = cai.tabulate(model).log_prior
    torch.testing.assert_close(log_prior.exp(), torch.as_tensor(problem.prior))


def test_rewards_may_be_numbers():
    model = dataclasses.replace(models.ledge(), reward=-0.1, arrival_reward=-0.2, final_reward=None)
    assert inference.posterior(model).bound == pytest.approx(-1.2, abs=1e-12)
    trace, _ = sites(model)
    trace.compute_log_prob()
    assert trace.nodes["o_1"]["log_prob"].item() == pytest.approx(-0.3, abs=1e-15)


def test_the_infinite_horizon_cannot_be_run():
    model = models.ledge(horizon=None)
    for run in (model, lambda: model.simulate(lambda t, s: model.prior(s), 2)):
        with pytest.raises(ValueError, match=r"horizon: .*infinite"):
            run()


def test_models_are_frozen_and_copied_without_their_parts():
    model = models.ledge()
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.horizon = 3
    assert copy.deepcopy(model) is model
    assert dataclasses.replace(model, temperature=0.1).temperature == 0.1


def test_unrolling_splits_the_table_once():
    """Indexing a table at each step would allocate its whole gradient T times."""
    model = models.ledge(horizon=20)
    policy = cai.TabularPolicy(model)
    trace = poutine.trace(model.rollout(policy)).get_trace()
    seen, front = set(), [trace.log_prob_sum().grad_fn]
    while front:
        node = front.pop()
        if node is not None and node not in seen:
            seen.add(node)
            front += [parent for parent, _ in node.next_functions]
    assert sum("Unbind" in node.name() for node in seen) == 1


@pytest.mark.parametrize("name", ["a", "s"])
def test_a_step_is_drawn_whatever_the_latents_of_the_dynamics_are_called(name):
    def dynamics(s, a):
        push = pyro.sample(name, dist.Normal(0.0, 0.1))
        return dist.Normal(s + push, 0.05)

    model = continuous(
        initial=dist.Normal(0.0, 1.0), dynamics=dynamics, reward=lambda s, a: -(s**2)
    )
    a, s_next = model.draw_step(0, torch.zeros(4))
    assert a.shape == s_next.shape == (4,)

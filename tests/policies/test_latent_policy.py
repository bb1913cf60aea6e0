"""Latents of an episode and of a step: the auxiliary bound, its gap, and what they are good for."""

import dataclasses
import math

import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import bandit, continuous, scramble, sites
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate

import cai
from cai import inference, models
from cai.policies.latent import LatentPolicy
from cai.program.scoring import log_auxiliary

SKILLS = dist.Categorical(torch.tensor([0.5, 0.3, 0.2]))


def enumerated(model, policy, program=None):
    guide = config_enumerate(cai.collapse(model).rollout(policy), "parallel")
    program = program or cai.collapse(model)
    return -TraceEnum_ELBO(max_plate_nesting=0).loss(program, guide)


def by_paths(problem, policy, r=None):
    """E_q[log p(τ,O) - log q(τ)], z summed out, and E KL(q(z|τ) ‖ r(z)), by all paths."""
    S, A = problem.sizes
    every = [[[1.0] * A for _ in range(S)] for _ in range(problem.T)]
    s = torch.arange(S)
    gate = policy.gate_log_probs(0, s).detach().double()
    given_z = [
        policy.of_all(t, s).logits.log_softmax(-1).detach().double() for t in range(problem.T)
    ]
    value = gap = 0.0
    for path in oracles.paths(problem, policy=every):
        log_joint = gate[path.states[0]].clone()
        log_prior = 0.0
        for t, a in enumerate(path.actions):
            log_joint += given_z[t][path.states[t], :, a]
            log_prior += math.log(problem.prior[path.states[t]][a])
        log_q = log_joint.logsumexp(-1)
        weight = path.probability * log_q.exp().item()
        value += weight * (path.reward / problem.temperature + log_prior - log_q.item())
        if r is not None:
            q = (log_joint - log_q).exp()
            gap += weight * (q * (log_joint - log_q - r)).sum().item()
    return value, gap


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_an_episodes_latent_by_all_paths_and_by_enumeration(discount):
    """With the exact r(z|τ) the auxiliary bound is the ELBO of the policy with z summed out."""
    problem = oracles.random_problem(2, T=2, forbidden=0.0, discount=discount)
    model = problem.model()
    policy = scramble(LatentPolicy(model, SKILLS, hidden=(4,)).double())
    truth, _ = by_paths(problem, policy)
    with_z = enumerated(model, policy, cai.collapse(model).with_auxiliary(policy))
    assert with_z == pytest.approx(truth, abs=1e-10)
    assert enumerated(model, policy.marginal()) == pytest.approx(truth, abs=1e-10)
    found = cai.evaluate(model, policy, samples=4000)
    assert abs(found.elbo - truth) < 4 * found.elbo_stderr
    assert truth < inference.soft_values(model).elbo


class Guesses(LatentPolicy):
    """r(z|τ) that does not look at the trajectory."""

    r = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)

    def reverse(self, states, actions, alive):
        pyro.sample("z", dist.Categorical(self.r))


def test_a_poor_r_costs_its_divergence():
    problem = oracles.random_problem(2, T=2, forbidden=0.0)
    model = problem.model()
    policy = scramble(Guesses(model, SKILLS, hidden=(4,)).double())
    truth, gap = by_paths(problem, policy, policy.r.log())
    assert gap > 0.1
    with_z = enumerated(model, policy, cai.collapse(model).with_auxiliary(policy))
    assert with_z == pytest.approx(truth - gap, abs=1e-10)
    found = cai.evaluate(model, policy, samples=4000)
    assert abs(found.elbo - (truth - gap)) < 4 * found.elbo_stderr


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6), discount=st.sampled_from([1.0, 0.8]))
def test_a_steps_latent_is_a_mixture(seed, discount):
    """Summed out it is a plain policy; and no latent beats the best with fixed dynamics."""
    model = oracles.random_problem(seed, T=2, forbidden=0.0, discount=discount).model()
    policy = scramble(LatentPolicy(model, dist.Categorical(torch.ones(2)), "step").double())
    marginal = policy.marginal()
    plain = cai.evaluate(model, lambda t, s: marginal.start()(t, s, None))
    with_z = enumerated(model, policy, cai.collapse(model).with_auxiliary(policy))
    assert with_z == pytest.approx(plain.elbo, abs=1e-9)
    assert with_z <= inference.soft_values(model).elbo + 1e-9


def test_sites_of_guide_and_model():
    model = models.ledge(horizon=2)
    for per, names in (("episode", ["z"]), ("step", ["z_0", "z_1"])):
        policy = LatentPolicy(model, SKILLS, per)
        _, of_guide = sites(model.rollout(policy))
        _, of_model = sites(model.with_auxiliary(policy))
        assert [name for name in of_guide if name.startswith("z")] == names
        assert of_model[-len(names) :] == names
        assert set(of_model) - set(of_guide) == {"o_0", "o_1"}


@pytest.mark.parametrize("estimator", ["auto", "score"])
def test_fit_improves_a_policy_of_skills(estimator):
    model = models.ledge()
    policy = LatentPolicy(model, SKILLS, hidden=())
    fitted = inference.fit(model, policy, steps=100, learning_rate=0.05, estimator=estimator)
    before = cai.evaluate(model, policy)
    assert fitted.elbo > before.elbo + 0.1
    assert fitted.elbo < inference.soft_values(model).elbo + 4 * before.elbo_stderr
    report = cai.compare(model, {"skills": fitted})
    assert report["skills"].elbo == pytest.approx(fitted.elbo, abs=0.1)


def test_a_latent_at_each_step_makes_actions_of_two_modes():
    prior = dist.Normal(torch.zeros(2), 2.0).to_event(1)
    modes = dist.Normal(torch.tensor([[2.0, 1.0], [-2.0, -1.0]]), 0.4).to_event(1)
    both = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.3, 0.7])), modes)
    model = bandit(prior, both.log_prob)
    policy = LatentPolicy(model, dist.Categorical(torch.ones(2)), "step", hidden=())
    with torch.no_grad():  # apart, or both may find the same mode
        policy.network[0].weight[0, -2:] = torch.tensor([1.0, -1.0])
    fitted = inference.fit(model, policy, steps=400, learning_rate=0.1, samples=200)
    assert fitted.elbo == pytest.approx(0, abs=0.03)


def idle(T=3):
    """Nothing is paid: the ELBO is minus the divergence of the actions to their prior."""
    return cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s, 1.0),
        reward=0.0,
        action_prior=dist.Normal(torch.zeros(1), 1.0).to_event(1),
        horizon=T,
    )


@pytest.mark.parametrize("looks", [True, False])
def test_actions_that_go_together_in_closed_form(looks):
    """a_t = c z + noise: a Gaussian r(z|Σ a) is exact; one that does not look costs I(z;τ)."""
    model, c, spread, T = idle(), 0.8, 0.5, 3
    z = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    policy = LatentPolicy(model, z, hidden=())
    action, back = policy.network[0], policy.backward[0]
    with torch.no_grad():
        for layer in (action, back):
            layer.weight.zero_()
            layer.bias.zero_()
        action.weight[0, 2], action.bias[1] = c, math.log(spread)
        if looks:
            precision = 1 + T * c**2 / spread**2
            back.weight[0, 2] = c / spread**2 / precision
            back.bias[1] = -0.5 * math.log(precision) / T  # what the steps say is added up
    covariance = spread**2 * torch.eye(T) + c**2
    actions = torch.distributions.MultivariateNormal(torch.zeros(T), covariance)
    prior = torch.distributions.MultivariateNormal(torch.zeros(T), torch.eye(T))
    best = -torch.distributions.kl_divergence(actions, prior).item()
    information = 0.5 * math.log(1 + T * c**2 / spread**2)
    expected = best if looks else best - information
    found = cai.evaluate(model, policy, samples=20_000)
    assert abs(found.elbo - expected) < 4 * found.elbo_stderr
    loss = Trace_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=0)
    pyros = -loss.loss(model.with_auxiliary(policy), model.rollout(policy))
    assert abs(pyros - expected) < 5 * found.elbo_stderr


@pytest.mark.parametrize("per", ["episode", "step"])
def test_svi_trains_a_continuous_latent_and_its_r(per):
    model = continuous(horizon=3, discount=0.9, reward=lambda s, a: -((a - 2) ** 2))
    policy = LatentPolicy(model, dist.Normal(torch.zeros(2), 1.0).to_event(1), per, hidden=(8,))
    before = cai.evaluate(model, policy, samples=2000)
    loss = Trace_ELBO(num_particles=64, vectorize_particles=True, max_plate_nesting=0)
    optim = pyro.optim.ClippedAdam({"lr": 0.03})
    svi = SVI(model.with_auxiliary(policy), model.rollout(policy), optim, loss)
    kept = [p.clone() for p in policy.backward.parameters()]
    for _ in range(40):
        svi.step()
    after = cai.evaluate(model, policy, samples=2000)
    assert after.elbo > before.elbo + 3 * before.elbo_stderr
    assert not all(map(torch.equal, kept, policy.backward.parameters()))


@pytest.mark.parametrize(
    ("make", "rate"),
    [(cai.RecurrentPolicy, 0.03), (cai.NeuralPolicy, 0.03), (cai.GaussianPlan, 0.1)],
)
def test_pathwise_gradients_reach_memories(make, rate):
    model = continuous(horizon=3, reward=lambda s, a: -((a - 2) ** 2))
    fitted = inference.fit(
        model, make(model), steps=100, samples=64, learning_rate=rate, estimator="pathwise"
    )
    # By steps the best is N(4/3, 1/3), at r/α + log prior = -(a - 2)² - a²/2 - log √2π.
    best = 3 * (-4 / 3 + 0.5 * math.log(1 / 3))
    assert fitted.elbo == pytest.approx(best, abs=0.1)


def test_pathwise_gradients_of_a_continuous_latent_are_those_of_the_bound():
    """Actions that go together by z cost nothing where they should: ELBO and gradient are SVI's."""
    model = continuous(horizon=3, reward=lambda s, a: -((a - 2) ** 2))
    latent = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    policy = scramble(LatentPolicy(model, latent, hidden=(4,)))
    fitted = inference.fit(
        model, policy, steps=1, samples=20_000, learning_rate=1e-9, estimator="pathwise"
    )
    found = cai.evaluate(model, policy, samples=20_000)
    assert abs(fitted.losses[0].item() + found.elbo) < 6 * found.elbo_stderr
    fresh = LatentPolicy(model, latent, hidden=(4,))
    trained = inference.fit(model, fresh, steps=150, learning_rate=0.05, estimator="pathwise")
    best = 3 * (-4 / 3 + 0.5 * math.log(1 / 3))
    assert best - 0.6 < trained.elbo < best + 0.1
    short = dataclasses.replace(model, discount=0.9)
    with pytest.raises(ValueError, match=r"a discount of 1 for a policy with latents, got 0.9"):
        inference.fit(short, policy, steps=1, estimator="pathwise")


def test_what_is_no_latent_policy():
    model = models.ledge()
    with pytest.raises(ValueError, match=r"latent: expected .* got Normal of event shape \[\]"):
        LatentPolicy(model, dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match='per: expected "episode" or "step"'):
        LatentPolicy(model, SKILLS, "day")
    with pytest.raises(ValueError, match=r"policy: expected one with latents, .* TabularPolicy"):
        model.with_auxiliary(cai.TabularPolicy(model))
    smooth = LatentPolicy(model, dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pytest.raises(ValueError, match=r"latent: expected a finite one, .* SVI"):
        inference.fit(model, smooth, steps=2)


def test_a_latent_that_reverse_forgets_is_not_free():
    class Forgetful(cai.LatentPolicy):
        def reverse(self, states, actions, alive):
            pass

    model = models.ledge()
    policy = Forgetful(model, dist.Categorical(torch.ones(2)))
    with pytest.raises(ValueError, match=r"policy\.reverse: .* one without the site z; draw each"):
        cai.evaluate(model, policy)


@pytest.mark.parametrize("site", ["y", "s_1"])
def test_reverse_draws_what_the_policy_draws_and_nothing_else(site):
    class Talkative(cai.LatentPolicy):
        def reverse(self, states, actions, alive):
            super().reverse(states, actions, alive)
            pyro.sample(site, dist.Categorical(torch.ones(5)))

    model = models.ledge()
    policy = Talkative(model, dist.Categorical(torch.ones(2)))
    with pytest.raises(ValueError, match=rf"policy\.reverse: .* of the policy alone, .* {site};"):
        cai.evaluate(model, policy)


def test_several_latents_are_all_paid_for():
    """log r - log q of two latents is the sum of what each costs."""

    class TwoLatents:
        def reverse(self, states, actions, alive):
            pyro.sample("y", dist.Normal(torch.tensor([1.0, 1.0]).double(), 2.0))
            pyro.sample("z", dist.Bernoulli(torch.tensor([0.25, 0.25]).double()))

    latents = {"y": torch.tensor([1.0, 3.0]).double(), "z": torch.tensor([1.0, 0.0]).double()}
    log_q = {"y": torch.tensor([-0.5, 0.5]).double(), "z": torch.tensor([-2.0, -3.0]).double()}
    density = -math.log(2 * math.sqrt(2 * math.pi))
    by_hand = [
        density + math.log(0.25) + 0.5 + 2.0,
        density - 0.5 + math.log(0.75) - 0.5 + 3.0,
    ]
    found = log_auxiliary(TwoLatents(), latents, log_q, (None, None, None))
    assert found.tolist() == pytest.approx(by_hand, abs=1e-12)

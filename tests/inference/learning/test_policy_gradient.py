"""The policy gradient rests where the exact methods say: proper and naive entropy at their own."""

import statistics

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models
from cai.inference.learning.policy_gradient import PolicyGradient
from cai.inference.learning.state_values import StateValues
from cai.inference.learning.stepped import Stepped, stepped
from cai.stepping.source import Transition


def fork(length=3):
    """A corridor with one safe action of four, or a meadow of equal length, -½ a step, all safe."""
    S, A = 2 * length + 3, 4
    fatal, end = S - 2, S - 1
    P, r = torch.zeros(S, A, S), torch.zeros(S, A)
    P[0, :2, 1] = P[0, 2:, 1 + length] = 1
    for i in range(length):
        corridor, meadow = 1 + i, 1 + length + i
        P[corridor, 0, corridor + 1 if i < length - 1 else end] = P[corridor, 1:, fatal] = 1
        P[meadow, :, meadow + 1 if i < length - 1 else end] = 1
        r[corridor, 1:], r[meadow] = -8.0, -0.5
    P[fatal, :, end] = P[end, :, end] = 1
    return models.tabular(P, r, horizon=length + 2)


def share_in_the_corridor(policy):
    return policy.log_probs[0, 0, :2].exp().sum().item()


@pytest.mark.parametrize(("entropy", "rule"), [("proper", "soft"), ("naive", "boltzmann")])
def test_each_entropy_rests_at_the_rule_that_is_its_own(entropy, rule):
    model = fork()
    exact = {x: inference.soft_values(model, rule=x).policy for x in ("soft", "boltzmann")}
    shares = {x: share_in_the_corridor(policy) for x, policy in exact.items()}
    assert shares["soft"] < 0.1
    assert shares["boltzmann"] > 0.75
    learnt = [
        inference.policy_gradient(
            model,
            cai.TabularPolicy(model),
            steps=100_000,
            num_envs=16,
            length=5,
            lam=0.9,
            entropy=entropy,
            learning_rate=0.05,
            seed=seed,
            progress=False,
        )
        for seed in range(3)
    ]
    found = statistics.median(share_in_the_corridor(x.policy) for x in learnt)
    assert found == pytest.approx(shares[rule], abs=0.1)
    elbos = [cai.evaluate(model, x.policy).elbo for x in learnt]
    best = cai.evaluate(model, exact[rule]).elbo
    assert statistics.median(elbos) == pytest.approx(best, abs=0.15)


class Scripted:
    """A source that says what it was told to, whatever is done."""

    def __init__(self, *transitions):
        self.transitions, self.num_envs = list(transitions), 1
        self.s, self.t = transitions[0].s, transitions[0].t

    def step(self, a):
        taken, self.transitions = self.transitions[0], self.transitions[1:]
        if self.transitions:
            self.s, self.t = self.transitions[0].s, self.transitions[0].t
        return taken


def transition(s, s_next, reward, ended=False, cut=False, counts=True):
    one = torch.tensor([0])
    flags = (torch.tensor([x]) for x in (ended, cut, counts))
    paid = torch.tensor([reward]).double()
    return Transition(torch.tensor([s]), one, one, paid, torch.tensor([s_next]), *flags)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("entropy", ["proper", "naive"])
def test_the_loss_is_that_of_the_equation(lam, entropy):
    """A segment by hand: one that terminates, one that is truncated, one that is cut off."""
    gamma, alpha = 0.9, 0.5
    model = models.ledge(horizon=None, discount=gamma, temperature=alpha)
    policy = cai.TabularPolicy(model, stationary=True)
    with torch.no_grad():
        policy.logits += torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    torch.manual_seed(0)
    critic = StateValues(model, (4,), timed=False)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    steps = [
        transition(0, 1, -1.0),
        transition(1, 2, -2.0, ended=True),
        transition(3, 0, 5.0, counts=False),
        transition(0, 3, -3.0),
        transition(3, 1, 1.0, cut=True),
        transition(2, 4, -0.5),
    ]
    state = PolicyGradient(
        policy, critic, Stepped(model, Scripted(*steps), None), len(steps), lam, entropy
    )
    state.alpha = alpha
    found = state.loss().item()

    log_q = policy.log_probs
    kl = (log_q.exp() * (log_q - policy.log_prior)).sum(-1).detach().numpy()
    V = critic(0, torch.arange(5)).detach().numpy()
    advantage, later = np.zeros(len(steps)), 0.0
    for k in reversed(range(len(steps))):
        s, s_next = int(steps[k].s), int(steps[k].s_next)
        follows = 0.0 if steps[k].ended else V[s_next]
        paid = float(steps[k].reward) - (alpha * kl[s] if entropy == "proper" else 0.0)
        later = 0.0 if steps[k].over else later
        later = paid + gamma * follows - V[s] + gamma * lam * later
        advantage[k] = later
    terms = []
    for k, step in enumerate(steps):
        s = int(step.s)
        if step.counts:
            score = -log_q[s, 0].item() * advantage[k] + alpha * kl[s]
            terms.append(score + 0.5 * advantage[k] ** 2)
    assert found == pytest.approx(np.mean(terms), rel=1e-6)


def test_the_gradient_is_that_of_the_elbo():
    """On full episodes and λ = 1, whatever the critic says, by the mean over many."""
    rng = np.random.default_rng(0)
    P, r = rng.dirichlet(np.ones(3), (3, 3)), 2 * rng.normal(size=(3, 3))
    model = models.tabular(P, r, horizon=3, temperature=0.7)
    policy = cai.TabularPolicy(model)
    with torch.no_grad():
        policy.logits += torch.linspace(-1, 1, policy.logits.numel()).view_as(policy.logits)
    exact = -model.temperature * slope_of_elbo(model, policy) / model.horizon
    torch.manual_seed(1)
    critic, n = StateValues(model, (4,), timed=True), 200_000
    state = PolicyGradient(policy, critic, stepped(model, n), 3, 1.0)
    state.alpha = model.temperature
    (found,) = torch.autograd.grad(state.loss(), policy.logits)
    assert torch.allclose(found, exact, atol=0.004)  # some five standard errors
    assert exact.abs().max() > 0.1


def slope_of_elbo(model, policy, h=1e-5):
    """By central differences of the exact ELBO, nats."""
    logits, slope = policy.logits.data.flatten(), []
    for i in range(len(logits)):
        ends = []
        for step in (h, -h):
            logits[i] += step
            ends.append(cai.evaluate(model, policy).elbo)
            logits[i] -= step
        slope.append((ends[0] - ends[1]) / (2 * h))
    return torch.tensor(slope, dtype=torch.float64).view_as(policy.logits)


def test_actions_on_a_box_approach_the_best_of_their_family():
    """One step, r = -(a - ½)², uniform on ±1: the best policy is ∝ exp(r/α)."""
    zero = torch.zeros(1, dtype=torch.float64)
    model = cai.TrajectoryModel(
        initial=dist.Normal(zero, 1 + zero).to_event(1),
        dynamics=lambda s, a: dist.Delta(s, event_dim=1),
        reward=lambda s, a: -((a[..., 0] - 0.5) ** 2),
        action_prior=dist.Uniform(-1 - zero, 1 + zero).to_event(1),
        horizon=1,
        temperature=0.1,
    )
    grid = torch.linspace(-1, 1, 20_001).double()
    best = torch.logsumexp(-((grid - 0.5) ** 2) / 0.1, 0) - torch.tensor(20_001.0).log()
    for entropy in ("proper", "naive"):  # one step has no later entropies
        learnt = inference.policy_gradient(
            model,
            cai.NeuralPolicy(model, hidden=(8,)),
            steps=60_000,
            num_envs=64,
            length=1,
            entropy=entropy,
            learning_rate=0.01,
            progress=False,
        )
        found = cai.evaluate(model, learnt.policy, samples=4000)
        assert best.item() - 0.1 < found.elbo < best.item() + 4 * found.elbo_stderr


def test_cartpole_is_learnt():
    cart = models.environment("CartPole-v1", temperature=0.01, discount=0.99)
    policy = cai.NeuralPolicy(cart, stationary=True)
    late = []
    for seed in range(3):
        learnt = inference.policy_gradient(cart, policy, steps=40_000, seed=seed, progress=False)
        late.append(learnt.history["returns"][-20:].nanmean().item())
    assert statistics.median(late) > 120  # the prior's 22
    at_start = learnt.values(torch.zeros(4))
    assert 5 < at_start.item() < 110  # at most 1/(1 - γ)


def test_the_same_seed_trains_the_same_and_leaves_policy_and_generator_alone():
    model, before = models.ledge(), torch.get_rng_state()
    policy = cai.TabularPolicy(model)
    one, two = (
        inference.policy_gradient(model, policy, steps=2000, seed=4, progress=False)
        for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.policy.logits, two.policy.logits)
    assert not policy.logits.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"policy": None}, "policy: expected a torch module with parameters"),
        ({"policy": cai.RecurrentPolicy(models.ledge())}, "policy: expected one without a memory"),
        ({"lam": 2}, "lam: expected"),
        ({"length": 0}, "length: expected"),
        ({"entropy": "none"}, 'entropy: expected "proper" or "naive"'),
        ({"learning_rate": 0}, "learning_rate: expected"),
        ({"clip": -1}, "clip: expected"),
        ({"hidden": 3}, "hidden: expected"),
        ({"source": 3}, "source: expected a model"),
        ({"source": models.pendulum(horizon=3)}, "policy: expected a function that takes steps"),
        ({"source": models.gridworld("bridge")}, "policy: expected"),
    ],
)
def test_wrong_input(wrong, message):
    arguments = {"source": models.ledge(), "policy": cai.TabularPolicy(models.ledge())} | wrong
    with pytest.raises(ValueError, match=message):
        inference.policy_gradient(
            arguments.pop("source"), arguments.pop("policy"), progress=False, **arguments
        )

"""Derivatives: against finite differences, a taped recursion, and sums over all paths."""

import dataclasses
import math

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

ETAS = [-1.3, -0.01, 0.0, 0.4, 1.0, 2.0]
FIELDS = (
    *("reward", "arrival_reward", "final_reward"),
    *("log_prior", "log_dynamics", "log_initial", "temperature"),
)
STATES, ACTIONS = torch.tensor([[0, 1, 2], [1, 1, 0]]), torch.tensor([[0, 1, 0], [1, 0, 0]])
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
etas = st.one_of(st.just(0.0), st.floats(-3, 3))


def random_table(seed, **arguments):
    return cai.tabulate(oracles.random_problem(seed, **arguments).model())


def parameters(table):
    """The finite numbers of each field, as leaves; and the way back into a table."""
    fields = {name: torch.as_tensor(getattr(table, name)).double() for name in FIELDS}
    masks = {name: x > -torch.inf for name, x in fields.items()}
    leaves = [x[masks[name]].clone().requires_grad_() for name, x in fields.items()]

    def rebuild(*leaves):
        pairs = zip(fields.items(), leaves, strict=True)
        return dataclasses.replace(
            table,
            **{
                name: torch.full_like(x, -torch.inf).masked_scatter(masks[name], leaf)
                for (name, x), leaf in pairs
            },
        )

    return leaves, rebuild


def everything(table, eta, rule="soft"):
    """All that can be differentiated; -inf is nothing that finite differences understand."""
    likely = inference.log_likelihood(table, (STATES, ACTIONS), eta, rule)
    V = inference.differentiable_values(table, eta, rule)
    likely, V = (torch.where(x > -torch.inf, x, 0.0) for x in (likely, V))
    return V, inference.differentiable_bound(table, eta, rule), likely


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [*ETAS, 1e-9, -math.inf, math.inf])
def test_gradcheck(eta, discount):
    """Every field at once against finite differences, and so the derivatives of derivatives."""
    leaves, rebuild = parameters(random_table(3, discount=discount))
    assert torch.autograd.gradcheck(lambda *x: everything(rebuild(*x), eta), leaves)
    if discount < 1 or eta in (0.0, 1.0, math.inf):  # the others differ from these by weights alone
        assert torch.autograd.gradgradcheck(
            lambda *x: everything(rebuild(*x), eta), leaves, fast_mode=True
        )


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [-1.3, 0.0, 1e-9, 0.4, 1.0, math.inf])
@pytest.mark.parametrize("rule", ["hard", "boltzmann", "planned"])
def test_gradcheck_of_the_other_rules(rule, eta, discount):
    """The hard rule's is a subgradient, right wherever one action is the best."""
    leaves, rebuild = parameters(random_table(3, discount=discount))
    assert torch.autograd.gradcheck(lambda *x: everything(rebuild(*x), eta, rule), leaves)


@given(seed=seeds, eta=st.sampled_from([0.0, 0.7]))
def test_under_the_boltzmann_rule_a_gradient_is_no_occupancy(seed, eta):
    """∂V/∂Q = π(1 + (Q - V)/α): a poor action counts less than it is taken, even below zero."""
    table = random_table(seed, T=4, zeros=0.0, forbidden=0.0)
    found = inference.soft_values(table, eta, "boltzmann")
    reward = table.reward.clone().requires_grad_()
    inference.differentiable_bound(
        dataclasses.replace(table, reward=reward), eta, "boltzmann"
    ).backward()
    # A reward for every action alike is simply paid, so that the sums agree; the shares do not.
    alpha = table.temperature
    V, Q, pi = found.V[:-1], found.Q, found.policy.log_probs.exp()
    mass, expected = found.initial, torch.zeros_like(table.reward)
    for t in range(table.steps):
        counted = mass.unsqueeze(-1) * pi[t] * (1 + (Q[t] - V[t].unsqueeze(-1)) / alpha)
        expected += counted
        mass = torch.einsum("sa,san->n", counted, found.dynamics(t))
    torch.testing.assert_close(reward.grad, expected / alpha, rtol=0, atol=1e-10)
    assert reward.grad.sum().item() == pytest.approx(table.steps / alpha, abs=1e-9)
    assert (reward.grad - found.state_actions.sum(0) / alpha).abs().max() > 1e-4


def test_hard_gradients_are_those_of_the_best_plan():
    """Deterministic dynamics: the counts of the one best path."""
    P = torch.eye(3).roll(1, 1).unsqueeze(1).repeat(1, 2, 1)
    reward = torch.tensor([[0.0, 1.0], [3.0, 1.0], [0.5, 0.7]], dtype=torch.float64)
    table = cai.tabulate(models.tabular(P, reward, horizon=4, temperature=0.3))
    table = dataclasses.replace(table, reward=reward.requires_grad_())
    V = inference.differentiable_values(table, 0.0, "hard")
    V[0, 0].backward()
    assert V[0, 0].item() == pytest.approx(1 + 3 + 0.7 + 1)
    assert reward.grad.tolist() == [[0, 2], [1, 0], [0, 1]]


def taped(table, eta):
    """V, bound and likelihoods by a recursion in probability space that torch tapes itself."""
    alpha = table.temperature
    P, start = (x.softmax(-1) for x in (table.log_dynamics, table.log_initial))
    prior = table.log_prior.exp()
    lists = torch.arange(3).expand(3, 2, 3) if table.successors is None else table.successors

    def soft_mean(p, x):
        return (p * x).sum(-1) if eta == 0 else (p * (eta * x).exp()).sum(-1).log() / eta

    v = table.final_reward / alpha
    found, policy = [v], []
    for _ in range(table.steps):
        coin = torch.tensor([table.discount, 1 - table.discount], dtype=torch.float64)
        x = soft_mean(coin, torch.stack([v, torch.zeros_like(v)], -1))[lists]
        q = table.reward / alpha + soft_mean(P, x + table.arrival_reward / alpha)
        weights = prior * q.exp()
        v = weights.sum(-1).log()
        found.insert(0, v)
        policy.insert(0, weights / weights.sum(-1, keepdim=True))
    steps = torch.arange(STATES.shape[1])
    likely = torch.stack(policy)[steps, STATES, ACTIONS].log().sum(-1)
    return alpha * torch.stack(found), soft_mean(start, found[0]), likely


@given(seed=seeds, eta=etas.filter(lambda eta: eta == 0 or abs(eta) > 0.01), discount=discounts)
def test_against_a_tape(seed, eta, discount):
    """The same numbers and the same gradients in every field, whatever comes back from the loss."""
    table = random_table(seed, discount=discount, forbidden=0)
    leaves, rebuild = parameters(table)
    rng = np.random.default_rng(seed)
    gradients = []
    answers = [method(rebuild(*leaves), eta) for method in (everything, taped)]
    cotangents = [torch.as_tensor(rng.normal(size=x.shape)) for x in answers[0]]
    for answer in answers:
        loss = sum((w * x).sum() for w, x in zip(cotangents, answer, strict=True))
        gradients.append(torch.autograd.grad(loss, leaves))
    for ours, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    for name, ours, theirs in zip(FIELDS, *gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9, msg=name)


@given(seed=seeds, discount=discounts)
def test_gradient_of_the_evidence_by_paths(seed, discount):
    """∂ log p(O)/∂r(s,a) is how often a is expected in s given O, over α, summed over paths."""
    problem = oracles.random_problem(seed, discount=discount)
    exact = oracles.posterior(problem)
    table = cai.tabulate(problem.model())
    reward = table.reward.clone().requires_grad_()
    found = inference.differentiable_bound(dataclasses.replace(table, reward=reward), 1.0)
    found.backward()
    counts = np.sum(exact["state_actions"], 0)
    assert found.item() == pytest.approx(math.log(exact["evidence"]), abs=1e-11)
    np.testing.assert_allclose(reward.grad * problem.temperature, counts, atol=1e-11)


@given(seed=seeds, eta=etas, discount=discounts)
def test_values_and_policies_are_those_of_soft_values(seed, eta, discount):
    table = random_table(seed, discount=discount)
    solution = inference.soft_values(table, eta)
    V, bound, likely = everything(table, eta)
    torch.testing.assert_close(V, solution.V, rtol=0, atol=1e-12)
    assert bound.item() == pytest.approx(solution.bound, abs=1e-12)
    log_pi = solution.policy.log_probs[torch.arange(3), STATES, ACTIONS].sum(-1)
    log_pi = torch.where(log_pi > -torch.inf, log_pi, 0.0)
    torch.testing.assert_close(likely, log_pi, rtol=0, atol=1e-12)


def wide(seed, S=300, A=3, K=2, T=40, **arguments):
    """A model of successor lists too large for matrices, swept a few steps at a time."""
    rng = np.random.default_rng(seed)
    P = rng.random((S, A, K))
    return cai.tabulate(
        models.tabular(
            P / P.sum(-1, keepdims=True),
            rng.normal(size=(S, A)),
            successors=np.stack([rng.permutation(S)[:K] for _ in range(S * A)]).reshape(S, A, K),
            horizon=T,
            initial=np.ones(S) / S,
            final_reward=rng.normal(size=S),
            **arguments,
        )
    )


def expected_counts(table, eta):
    """g_t^V (T+1, S, S, A) and g_t^Q (T, S, A, S, A): counts to come under policy and tilt."""
    found = inference.soft_values(table, eta)
    T, S, A = table.horizon, table.num_states, table.num_actions
    V, Q = torch.zeros(T + 1, S, S, A).double(), torch.zeros(T, S, A, S, A).double()
    for t in reversed(range(T)):
        pi, moves = found.policy.log_probs[t].exp(), found.dynamics(t)
        Q[t] = torch.einsum("san,nij->saij", moves, V[t + 1])
        for s in range(S):
            for a in range(A):
                Q[t, s, a, s, a] += 1
        V[t] = torch.einsum("sa,saij->sij", pi, Q[t])
    return V, Q


def likelihood_and_counts(model, eta, seed):
    """The gradient of log_likelihood in rewards, over what was simulated; and the counts."""
    table = cai.tabulate(model)
    seen = model.simulate(cai.TabularPolicy(model), 20, seed=seed)
    reward = table.reward.clone().requires_grad_()
    likely = inference.log_likelihood(dataclasses.replace(table, reward=reward), seen, eta)
    (gradient,) = torch.autograd.grad(likely.sum(), reward)
    T, alpha = table.horizon, table.temperature
    V, Q = expected_counts(table, eta)
    t = torch.arange(T).expand(20, T)
    s, a = seen.states[:, :T].long(), seen.actions.long()
    actions = (Q[t, s, a] - V[t, s]).sum((0, 1)) / alpha
    counts = torch.zeros_like(table.reward)
    counts.index_put_((s, a), torch.ones(20, T).double(), accumulate=True)
    return gradient, actions, (counts - V[0, s[:, 0]].sum(0)) / alpha


@pytest.mark.parametrize("eta", [-0.5, 0.0, 0.5, 1.0])
def test_the_gradient_of_the_likelihood_of_actions(eta):
    """Σ_t [g_t^Q(s_t,a_t) - g_t^V(s_t)] over α; chance is not put down to the agent."""
    rng = np.random.default_rng(5)
    model = models.tabular(
        rng.dirichlet(np.ones(4), size=(4, 3)),
        rng.normal(size=(4, 3)),
        initial=rng.random(4),
        horizon=5,
        temperature=0.7,
    )
    gradient, actions, observed_minus_expected = likelihood_and_counts(model, eta, 1)
    torch.testing.assert_close(gradient, actions, rtol=0, atol=1e-11)
    assert (gradient - observed_minus_expected).abs().max() > 0.5


@pytest.mark.parametrize("eta", [-0.5, 0.0, 0.5, 1.0])
def test_on_deterministic_dynamics_it_is_observed_minus_expected(eta):
    rng = np.random.default_rng(6)
    model = models.tabular(
        np.eye(4)[rng.integers(0, 4, size=(4, 3))],
        rng.normal(size=(4, 3)),
        initial=rng.random(4),
        horizon=5,
        temperature=0.7,
    )
    gradient, actions, observed_minus_expected = likelihood_and_counts(model, eta, 1)
    torch.testing.assert_close(gradient, actions, rtol=0, atol=1e-11)
    torch.testing.assert_close(gradient, observed_minus_expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("eta", [-0.5, 0.0, 0.5, 1.0])
def test_one_ticket_by_hand(eta):
    """Buying wins or loses by chance; what follows is the same, and so the score is 1 - π."""
    P = np.zeros((2, 2, 2))
    P[:, 0, 0], P[:, 1] = 1, [0.3, 0.7]
    table = cai.tabulate(models.tabular(P, [[0.0, 0.4], [0.0, 0.4]], horizon=1))
    reward = table.reward.clone().requires_grad_()
    seen = torch.tensor([[0, 1]]), torch.tensor([[1]])
    likely = inference.log_likelihood(dataclasses.replace(table, reward=reward), seen, eta)
    (gradient,) = torch.autograd.grad(likely.sum(), reward)
    buys = math.exp(0.4) / (1 + math.exp(0.4))
    assert gradient.tolist() == [pytest.approx([buys - 1, 1 - buys]), [0.0, 0.0]]


@pytest.mark.parametrize("eta", [-0.7, 0.0, 1.0])
def test_lists_of_successors_against_finite_differences(eta, monkeypatch):
    monkeypatch.setattr("cai.sweeps.sweeps._CHUNK", 5000)  # a few steps at a time
    table = wide(1, discount=0.95, temperature=0.5)
    leaves, rebuild = parameters(dataclasses.replace(table, arrival_reward=torch.randn(300, 3, 2)))
    seen = torch.randint(300, (5, 40)), torch.randint(3, (5, 40))

    def loss(*x):
        table = rebuild(*x)
        likely = inference.log_likelihood(table, seen, eta).mean()
        return (
            likely
            + inference.differentiable_bound(table, eta)
            + inference.differentiable_values(table, eta)[::7].mean()
        )

    gradients = torch.autograd.grad(loss(*leaves), leaves)
    for i, (name, gradient) in enumerate(zip(FIELDS, gradients, strict=True)):
        direction = torch.randn_like(leaves[i])
        ends = [
            loss(*(x + h * direction if i == j else x for j, x in enumerate(leaves)))
            for h in (1e-5, -1e-5)
        ]
        slope = (ends[0] - ends[1]).item() / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-6, abs=1e-8), name


@pytest.mark.parametrize("eta", [-math.inf, -1.0, 0.0, 1e-9, 1.0, math.inf])
def test_the_impossible_has_gradient_zero(eta):
    """Forbidden actions, zero probabilities, rewards of -inf and dead ends: never NaN."""
    P = torch.zeros(3, 2, 3)
    P[0, 0] = torch.tensor([0.0, 0.5, 0.5])
    P[0, 1] = torch.tensor([1.0, 0.0, 0.0])
    P[1:, :, 1] = 1
    reward = torch.tensor([[0.0, -torch.inf], [1.0, 2.0], [-torch.inf, 3.0]])
    prior = torch.tensor([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])  # state 2 is a dead end
    arrival = torch.where(P > 0, 0.5, 0.0)
    arrival[1, 0, 1] = 0.25
    model = models.tabular(
        *(P, reward),
        horizon=3,
        action_prior=prior,
        arrival_reward=arrival,
        initial=[0.5, 0.5, 0.0],
        final_reward=[0.0, 1.0, -torch.inf],
    )
    table = cai.tabulate(model)
    fields = {
        name: torch.as_tensor(getattr(table, name)).double().clone().requires_grad_()
        for name in FIELDS
    }
    table = dataclasses.replace(table, **fields)
    seen = torch.tensor([[0, 1], [0, 2], [1, 1]]), torch.tensor([[0, 0], [1, 1], [0, 1]])
    likely = inference.log_likelihood(table, seen, eta)
    V = inference.differentiable_values(table, eta)
    loss = likely.sum() + V.sum()
    if eta > 0:
        loss = loss + inference.differentiable_bound(table, eta)
    loss.backward()
    for name, x in fields.items():
        if name == "log_initial" and eta <= 0:  # the bound is -inf, and an error
            continue
        assert x.grad.isfinite().all(), name
        assert (x.grad[x == -torch.inf] == 0).all(), name
    assert (fields["reward"].grad != 0).any()
    assert likely[1] == -torch.inf


def test_nothing_of_a_step_is_taped():
    """What waits for the backward pass is v and the table, whatever the number of actions."""
    held = []
    table = wide(2, S=400, A=6, T=100)
    table = dataclasses.replace(table, log_dynamics=table.log_dynamics.clone().requires_grad_())
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: held.append(x.untyped_storage()) or x, lambda x: x
    ):
        inference.differentiable_values(table, 0.5)
    numbers = {storage.data_ptr(): storage.nbytes() // 8 for storage in held}
    S, A, T = 400, 6, 100
    assert sum(numbers.values()) <= (T + 1) * S + 6 * table.log_dynamics.numel()
    assert sum(numbers.values()) < T * S * A


def test_what_the_dead_do_is_not_scored():
    model = oracles.random_problem(4, T=6, discount=0.5).model()
    table = cai.tabulate(model)
    drawn = model.simulate(inference.soft_values(table).policy, 50, seed=1)
    assert not drawn.alive[:, :-1].all()
    found = inference.log_likelihood(table, drawn)
    log_pi = inference.soft_values(table).policy.log_probs
    for i in range(50):
        steps = int(drawn.alive[i, :-1].sum())
        pairs = zip(drawn.states[i].tolist(), drawn.actions[i].tolist(), strict=False)
        expected = sum(log_pi[t, s, a] for t, (s, a) in list(enumerate(pairs))[:steps])
        assert found[i].item() == pytest.approx(float(expected), abs=1e-12)


def test_rewards_of_a_network_reach_its_parameters():
    """Against the same network, tabulated by hand; on lists of successors and with arrivals."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    features = torch.randn(12, 2)

    def pay(s, a):
        return net(features[s]).gather(-1, a.unsqueeze(-1)).squeeze(-1)

    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(12)),
        dynamics=lambda s, a: cai.SparseCategorical(
            torch.zeros(*torch.broadcast_shapes(s.shape, a.shape), 2),
            torch.stack(torch.broadcast_tensors((s + a) % 12, (s + 5) % 12), -1),
            12,
        ),
        reward=pay,
        arrival_reward=lambda s, a, s_next: net(features[s_next])[..., 0],
        final_reward=lambda s: net(features[s])[..., 1],
        action_prior=dist.Categorical(torch.ones(3)),
        horizon=5,
    )
    table = cai.tabulate(model)
    assert table.successors is not None
    assert not table.reward.requires_grad
    paid = cai.tabulate_rewards(model, table)
    score = net(features)
    by_hand = dataclasses.replace(
        table,
        reward=score.double(),
        arrival_reward=score[:, 0].double()[table.successors],
        final_reward=score[:, 1].double(),
    )
    gradients = []
    for version in (paid, by_hand):
        net.zero_grad()
        inference.differentiable_bound(version, 1.0).backward(retain_graph=True)
        gradients.append([p.grad.clone() for p in net.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours != 0).any()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_other_methods_take_the_numbers_only():
    table = random_table(5)
    graph = dataclasses.replace(
        table,
        reward=table.reward.clone().requires_grad_(),
        temperature=torch.tensor(0.7, dtype=torch.float64, requires_grad=True),
    )
    plain, same = inference.soft_values(table, 0.5), inference.soft_values(graph, 0.5)
    assert not same.Q.requires_grad
    assert same.bound == pytest.approx(plain.bound, abs=1e-14)
    assert cai.evaluate(graph, same.policy).elbo == pytest.approx(
        cai.evaluate(table, plain.policy).elbo, abs=1e-14
    )
    assert cai.tabulate(table) is table


def test_errors():
    table = random_table(6)
    seen = (STATES, ACTIONS)
    with pytest.raises(ValueError, match="optimism: expected a real number"):
        inference.differentiable_values(table, math.nan)
    with pytest.raises(ValueError, match=r"states and actions of shape \(n, T\)"):
        inference.log_likelihood(table, (STATES[0], ACTIONS[0]))
    with pytest.raises(ValueError, match="at most 3 steps"):
        inference.log_likelihood(table, tuple(x.repeat(1, 2) for x in seen))
    with pytest.raises(ValueError, match=r"states: expected integers in 0 … 2, got .* to 3"):
        inference.log_likelihood(table, (STATES + 1, ACTIONS))
    with pytest.raises(ValueError, match=r"actions: expected integers in 0 … 1, got torch.float"):
        inference.log_likelihood(table, (STATES, ACTIONS.double()))
    with pytest.raises(ValueError, match="final_reward: expected none"):
        inference.differentiable_values(dataclasses.replace(table, horizon=None))
    with pytest.raises(ValueError, match="2 states and 1 actions"):
        cai.tabulate_rewards(models.tabular([[[1.0, 0]]] * 2, [[0.0]] * 2, horizon=1), table)
    hopeless = cai.tabulate(models.tabular([[[1.0]]], [[-torch.inf]], horizon=2))
    with pytest.raises(ValueError, match="bound: expected a finite number"):
        inference.differentiable_bound(hopeless, 1.0)

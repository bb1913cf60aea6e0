"""What learners do, as exact identities on random tables with discount and uneven priors.

Learners sample what stands here as sums. α is the papers' τ, p the action prior, L = log π/p, and
π_Q ∝ p exp(Q/α), V_Q = α log Σ_a p exp(Q/α). Numbers are those of Levine (2018), Schulman, Chen
and Abbeel (2017) and Haarnoja et al. (2017).
"""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.inference.gradients.exact_gradient import exact_gradient
from cai.inference.gradients.mirror import mirror_sweep
from cai.tables import bellman

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([0.8, 0.5])


def random_table(seed, horizon=None, discount=0.8, S=4, A=3, **changes):
    """No action forbidden, so that all logarithms are finite; rewards on arrival, too."""
    problem = oracles.random_problem(seed, S, A, discount=discount, forbidden=0.0)
    final = None if horizon is None else problem.final
    return cai.tabulate(problem.model(horizon=horizon, final_reward=final, **changes))


def draw(seed, *shape):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


def close(one, other, atol=1e-11):
    torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=0, atol=atol)


def kl(table, log_pi):
    """KL(π‖p) in each state, nats."""
    return (log_pi.exp() * (log_pi - table.log_prior)).sum(-1)


def ahead(table, V):
    """r + E[r⁺ + γV(s')], with dense transitions."""
    P = table.dense(table.log_dynamics)
    return table.expected_reward + table.discount * torch.einsum("san,...n->...sa", P, V)


def evaluated(table, log_pi, price=None):
    """Q^π of an endless problem by a linear system; a nat of KL costs ``price``, α if not given."""
    price = table.temperature if price is None else price
    pi, P = log_pi.exp(), table.dense(table.log_dynamics)
    moves = table.discount * torch.einsum("sa,san->sn", pi, P)
    paid = (pi * table.expected_reward).sum(-1) - price * kl(table, log_pi)
    V = torch.linalg.solve(torch.eye(len(moves)).double() - moves, paid)
    return ahead(table, V)


def soft_policy(table, Q):
    return (table.log_prior + Q / table.temperature).log_softmax(-1)


def sup(x):
    return x.abs().max().item()


# Soft Q-learning is a policy gradient


@given(seed=seeds, n=st.sampled_from([1, 2, 5]), discount=discounts, S=st.sampled_from([1, 4]))
def test_the_gradient_of_the_soft_q_loss_is_a_policy_gradient_and_a_value_gradient(
    seed, n, discount, S
):
    """Schulman eqs. 23 and 65, at any weights of the states and with any target network.

    E[∇Q (Q - y)] = -α E[∇log π V̂] + α² ∇KL + ½ ∇(V_Q - V̂)², y = V̂ + α KL, where all but
    the first step of the n in V̂ are expectations under the policy; S = 1 is a bandit.
    """
    table, shape = random_table(seed, discount=discount, S=S), (S, 3)
    alpha = table.temperature
    weights = draw(seed + 1, S).softmax(0)
    q = draw(seed + 2, *shape).requires_grad_()  # Q/α
    log_pi, v = bellman.log_policy(table, q), bellman.state_values(table, q)
    pi, frozen = log_pi.exp().detach(), log_pi.detach()
    then = draw(seed + 3, S)  # values of a target network that has nothing to do with Q
    for _ in range(n - 1):
        then = (pi * bellman.action_values(table, then, 0.0)).sum(-1) - kl(table, frozen)
    y = alpha * bellman.action_values(table, then, 0.0)
    estimate = y - alpha * kl(table, frozen).unsqueeze(-1)

    loss = (weights.unsqueeze(-1) * pi * (alpha * q - y) ** 2).sum() / 2
    by_policy = -alpha * (weights.unsqueeze(-1) * pi * log_pi * estimate).sum()
    penalty = alpha**2 * (weights * kl(table, log_pi)).sum()
    by_value = (weights * (alpha * v - (pi * estimate).sum(-1)) ** 2).sum() / 2
    (left,) = torch.autograd.grad(loss, q, retain_graph=True)
    (right,) = torch.autograd.grad(by_policy + penalty + by_value, q)
    close(left, right, 1e-12)
    assert sup(left) > 1e-6


@given(seed=seeds, discount=st.sampled_from([1.0, 0.8]))
def test_with_whole_returns_it_is_the_gradient_of_the_elbo(seed, discount):
    """On policy, to the end, weighted by occupancies: -α² ∇ELBO, and the error of the values."""
    table = random_table(seed, 4, discount)
    alpha, policy = table.temperature, cai.TabularPolicy(table.program)
    with torch.no_grad():
        policy.logits.copy_(draw(seed + 1, *policy.logits.shape))
    exact_gradient(table, policy)()
    q = policy.logits.detach().clone().requires_grad_()
    log_pi, v = bellman.log_policy(table, q), bellman.state_values(table, q)
    pi, frozen = log_pi.exp().detach(), log_pi.detach()
    states = cai.evaluate(table, policy).states[:-1]
    values, y = table.final_reward, torch.empty_like(pi)
    for t in range(3, -1, -1):
        y[t] = ahead(table, values)
        values = (pi[t] * y[t]).sum(-1) - alpha * kl(table, frozen[t])
    loss = (states.unsqueeze(-1) * pi * (alpha * q - y) ** 2).sum() / 2
    error = alpha * v - ((pi * y).sum(-1) - alpha * kl(table, frozen))
    (left,) = torch.autograd.grad(loss, q)
    (of_values,) = torch.autograd.grad((states * error**2).sum() / 2, q)
    close(left, alpha**2 * policy.logits.grad + of_values)


@given(seed=seeds, step=st.sampled_from([0.1, 0.5, 1.0]), discount=st.sampled_from([1.0, 0.8]))
def test_damped_regression_is_a_step_of_mirror_descent(seed, step, discount):
    """Q ← (1-ε) Q + ε Q^π, on policy, moves the policy as the natural gradient with step ε."""
    table = random_table(seed, 4, discount)
    alpha, q = table.temperature, draw(seed + 1, 4, 4, 3)
    log_pi = bellman.log_policy(table, q)
    values, backup = table.final_reward, torch.empty_like(q)
    for t in range(3, -1, -1):
        backup[t] = ahead(table, values)
        values = (log_pi[t].exp() * backup[t]).sum(-1) - alpha * kl(table, log_pi[t])
    regressed = bellman.log_policy(table, (1 - step) * q + step * backup / alpha)
    close(mirror_sweep(table, log_pi, step), regressed)


# What each variant converges to


@given(seed=seeds, discount=discounts)
def test_each_kind_of_entropy_ends_at_its_own_rule(seed, discount):
    """The naive bonus, of the present state alone, ends at the Boltzmann rule; the proper at soft.

    Stationary: π ∝ p exp(Q^π/α), where Q^π has no entropies in the naive case (Schulman eq. 79),
    nor for a SARSA whose agent is a softmax of its Q (Levine 5.2), until -αL is in the target.
    """
    table = random_table(seed, discount=discount, temperature=3.0)
    ends = {}
    for rule, price in (("boltzmann", 0.0), ("soft", table.temperature)):
        solution = inference.soft_values(table, rule=rule)
        found = solution.policy.log_probs
        close(soft_policy(table, evaluated(table, found, price)), found, 1e-9)
        Q = torch.zeros_like(solution.Q)
        for _ in range(300):  # expected SARSA
            log_pi = soft_policy(table, Q)
            Q = ahead(table, (log_pi.exp() * Q).sum(-1) - price * kl(table, log_pi))
        close(Q, solution.Q, 1e-9)
        ends[rule] = solution
    assert sup(ends["soft"].Q - ends["boltzmann"].Q) > 1e-6
    elbos = [cai.evaluate(table, ends[rule].policy).elbo for rule in ("soft", "boltzmann")]
    assert elbos[0] > elbos[1]


def fork():
    """Five steps with one safe action of four, or five steps at -½ each where all are safe."""
    P = torch.zeros(3, 4, 3)
    P[0, :2, 1] = P[0, 2:, 2] = P[1, :, 1] = P[2, :, 2] = 1
    reward = torch.zeros(3, 4).double()
    reward[1, 1:], reward[2] = -math.inf, -0.5
    return models.tabular(P, reward, horizon=6)


@pytest.mark.parametrize(
    ("rule", "corridor", "elbo"), [("boltzmann", 0.924, -7.02), ("soft", 0.012, -3.18)]
)
def test_the_naive_bonus_takes_the_corridor(rule, corridor, elbo):
    """It sees what a corridor pays, and not the five log 4 nats that it takes to stay in it."""
    model = fork()
    policy = inference.soft_values(model, rule=rule).policy
    into = policy.log_probs[0, 0].exp()[:2].sum().item()
    assert into == pytest.approx(corridor, abs=5e-4)
    assert cai.evaluate(model, policy).elbo == pytest.approx(elbo, abs=5e-3)
    assert inference.soft_values(model).elbo == pytest.approx(-3.1813, abs=1e-4)


@given(seed=seeds, discount=discounts)
def test_soft_policy_improvement(seed, discount):
    """Q of π̃ ∝ p exp(Q^π/α) is no less than Q^π anywhere (Haarnoja thm. 4), up to the soft Q."""
    table = random_table(seed, discount=discount)
    log_pi = (table.log_prior + draw(seed + 1, 4, 3)).log_softmax(-1)
    best, Q = inference.soft_values(table), evaluated(table, log_pi)
    for _ in range(4):
        better = evaluated(table, soft_policy(table, Q))
        assert (better >= Q - 1e-12).all()
        assert (better <= best.Q + 1e-10).all()
        Q = better
    for _ in range(20):
        Q = evaluated(table, soft_policy(table, Q))
    close(Q, best.Q, 1e-9)


@given(seed=seeds, discount=discounts)
def test_the_soft_backup_is_a_contraction(seed, discount):
    """|TQ - TQ'| ≤ γ |Q - Q'| (Haarnoja eq. 25); shifted by a constant exactly γ."""
    table = random_table(seed, discount=discount)

    def backup(q):
        return bellman.action_values(table, bellman.state_values(table, q), 0.0)

    one, other = draw(seed + 1, 4, 3), 3 * draw(seed + 2, 4, 3)
    assert sup(backup(one) - backup(other)) <= discount * sup(one - other) + 1e-14
    close(backup(one + 5) - backup(one), torch.full((4, 3), 5 * discount).double())


# Bonus or penalty


def cliff(temperature):
    """The cliff walk, cost 1 and no slip, with the penalty KL and with the bonus H = log 4 - KL."""
    model = models.gridworld("cliff", horizon=None, slip=0.0, temperature=temperature)
    table = cai.tabulate(model)
    alive = (table.reward != 0).any(-1, keepdim=True)
    bonus = torch.where(alive, table.reward + temperature * math.log(4), table.reward)
    return table, dataclasses.replace(table, reward=bonus)


def test_a_bonus_is_paid_for_staying_alive():
    """Schulman 6.2: the bonus is the penalty and α log A for each step alive."""
    penalty, bonus = (inference.soft_values(table) for table in cliff(0.7))
    assert penalty.states.sum().item() == pytest.approx(13.9, abs=0.06)
    assert bonus.states.sum().item() == pytest.approx(47.7, abs=0.06)
    penalty, bonus = cliff(0.75)
    assert inference.soft_values(penalty).states.sum().item() == pytest.approx(14.1, abs=0.06)
    with pytest.raises(
        ValueError, match=r"no finite values here: from state 36, .* it gains 0\.004"
    ):
        inference.soft_values(bonus)


# Path consistency


def residuals(problem, solution, behaviour):
    """-V(s_0) + Σ (r - αL) + r_T of each path of some behaviour, with its probability."""
    alpha, log_pi = problem.temperature, solution.policy.log_probs
    for path in oracles.paths(problem, policy=behaviour):
        C = path.reward - solution.V[0, path.states[0]].item()
        for t, (s, a) in enumerate(zip(path.states, path.actions, strict=False)):
            C -= alpha * (log_pi[t, s, a].item() - math.log(problem.prior[s][a]))
        yield path.probability, C


@given(seed=seeds, discount=st.sampled_from([1.0, 0.8]), start=st.integers(0, 2))
def test_half_the_mean_square_of_path_residuals_is_the_slope_of_the_optimism_curve(
    seed, discount, start
):
    """Their mean is zero under any behaviour; the square, on own full paths, is what luck does."""
    problem = oracles.random_problem(seed, discount=discount, forbidden=0.0)
    problem = dataclasses.replace(problem, initial=np.eye(3)[start])
    model = problem.model()
    solution = inference.soft_values(model)
    own, strange = solution.policy.log_probs.exp(), draw(seed, 3, 3, 2).softmax(-1)
    for behaviour in (own, strange):
        found = list(residuals(problem, solution, behaviour.tolist()))
        assert sum(p for p, _ in found) == pytest.approx(1, abs=1e-12)
        assert sum(p * C for p, C in found) == pytest.approx(0, abs=1e-12)
    square = sum(p * C**2 for p, C in residuals(problem, solution, own.tolist()))
    slope = inference.optimism_curve(model, [0.0]).slope.item()
    assert square / (2 * problem.temperature**2) == pytest.approx(slope, abs=1e-12)


@given(seed=seeds)
def test_path_residuals_are_zero_where_nothing_is_random(seed):
    problem = oracles.random_problem(seed, forbidden=0.0)
    rng = np.random.default_rng(seed)
    problem = dataclasses.replace(problem, P=np.eye(3)[rng.integers(3, size=(3, 2))])
    solution = inference.soft_values(problem.model())
    found = list(residuals(problem, solution, [problem.prior] * 3))
    assert max(abs(C) for _, C in found) < 1e-12
    assert len(found) >= 8


def test_the_slope_on_the_frozen_lake():
    """Simulated, the residuals in nats are log-weights less their mean."""
    lake = models.gym("FrozenLake-v1", horizon=20, temperature=0.1)
    slope = inference.optimism_curve(lake, [0.0]).slope.item()
    assert slope == pytest.approx(1.059, abs=5e-4)
    best = inference.soft_values(lake)
    paths = cai.evaluate(lake, best.policy, samples=20_000, seed=1)
    squares = (paths.log_weights - best.elbo) ** 2 / 2
    assert squares.mean().item() == pytest.approx(slope, abs=4 * squares.std().item() / 20_000**0.5)
    assert squares.std().item() / 20_000**0.5 < 0.05


# Transfer, and rewards that somebody else changes


@given(seed=seeds, discount=discounts)
def test_a_posterior_as_prior_adds_rewards(seed, discount):
    """With π₁* as action prior, V = V₁₊₂ - V₁ and the policy is that of r₁ + r₂."""
    first = random_table(seed, discount=discount)
    second = dataclasses.replace(
        first,
        reward=draw(seed + 1, 4, 3),
        arrival_reward=torch.where(
            first.log_dynamics > -math.inf, draw(seed + 2, *first.log_dynamics.shape), 0.0
        ),
    )
    both = dataclasses.replace(
        first,
        reward=first.reward + second.reward,
        arrival_reward=first.arrival_reward + second.arrival_reward,
    )
    one, sum_of_both = inference.soft_values(first), inference.soft_values(both)
    after = inference.soft_values(dataclasses.replace(second, log_prior=one.policy.log_probs))
    close(after.V, sum_of_both.V - one.V, 1e-10)
    close(after.policy.log_probs, sum_of_both.policy.log_probs, 1e-10)
    close(after.bound, sum_of_both.bound - one.bound, 1e-10)


@given(seed=seeds, horizon=st.sampled_from([4, None]))
def test_an_elbo_is_the_worst_case_over_rewards(seed, horizon):
    """α ELBO(π) = min E_π[R̃] over r̃ with Σ_a p exp((r - r̃)/α) ≤ 1, attained at r - αL."""
    table = random_table(seed, horizon)
    alpha = table.temperature
    log_pi = (table.log_prior + draw(seed + 1, 4, 3)).log_softmax(-1)
    policy = cai.TabularPolicy.from_log_probs(log_pi.expand(*([4] * (horizon is not None)), 4, 3))

    def paid(given_up):
        allowed = (table.log_prior + given_up / alpha).logsumexp(-1)
        assert (allowed <= 1e-12).all()
        changed = dataclasses.replace(table, reward=table.reward - given_up)
        return cai.evaluate(changed, policy).expected_return

    elbo = alpha * cai.evaluate(table, policy).elbo
    assert paid(alpha * (log_pi - table.log_prior)) == pytest.approx(elbo, abs=1e-11)
    for k in range(5):
        other = draw(seed + 2 + k, 4, 3)
        other = other - (table.log_prior + other).logsumexp(-1, keepdim=True)
        assert paid(alpha * other) >= elbo - 1e-11

"""Infinite horizons at every optimism: against mpmath, long horizons, closed forms and theorems."""

import dataclasses
import math

import numpy as np
import oracles
import precise
import pyro.distributions as dist
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.inference.infinite.linear_system import linear_system
from cai.numerics import logspace
from cai.tables import bellman

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.4])
optimism = st.sampled_from([-1.0, -0.3, -1e-6, 0.0, 1e-6, 0.3, 1.0, 2.0, math.inf])


def endless(seed, discount=1.0, S=3, A=2, T=None, ending=0.6, level=-0.2):
    """A random problem without a final reward; γ = 1: every step may end it in the last state."""
    rng = np.random.default_rng(seed)
    problem = oracles.random_problem(seed, S=S, A=A, T=T, discount=discount)
    problem.final = np.zeros(S)
    problem.reward = level + 0.05 * rng.normal(size=(S, A))
    problem.arrival = 0.05 * rng.normal(size=(S, A, S))
    if discount == 1:
        problem.P = (1 - ending) * problem.P
        problem.P[..., -1] += ending
        problem.P[-1], problem.reward[-1], problem.arrival[-1] = np.arange(S) == S - 1, 0, 0
    return problem


def model_of(problem):
    return problem.model(horizon=None, final_reward=None)


def table_of(problem):
    return cai.tabulate(model_of(problem))


def solve(problem, *dial):
    return inference.soft_values(model_of(problem), *dial)


def apart(found, expected):
    return (torch.as_tensor(found) - torch.as_tensor(expected)).abs().max().item()


def numbers(x):
    return torch.tensor(np.array(x, dtype=object).astype(float))


def waiting(cost=1.0, stay=0.5, **changes):
    """One state, in which one stays with some probability, for a cost, and then it is over."""
    P = [[[stay, 1 - stay]], [[0, 1]]]
    return models.tabular(P, [[-cost], [0]], horizon=None, **changes)


# Every field against fifty digits, step by step, until nobody is left


@settings(max_examples=10)
@given(seeds, discounts, optimism)
def test_every_field_against_mpmath(seed, discount, eta):
    discount = 0.3 if discount < 1 else 1.0
    problem = endless(seed, discount, T=36, ending=0.75)
    exact = precise.Dial(problem, eta)
    live = numbers(exact.V[0]) != 0
    left = numbers(exact.states[-1])[live].sum().item()
    assume(left < 1e-13)  # else 36 steps are too few to compare with
    found = solve(problem, eta)
    alpha = problem.temperature
    assert apart(found.V, alpha * numbers(exact.V[0])) <= found.error + 1e-12
    assert found.error < 1e-10
    assert found.residual < 1e-13
    assert found.bound == pytest.approx(float(exact.bound), abs=1e-11)
    allowed = torch.as_tensor(problem.prior) > 0
    assert apart(found.Q[allowed], alpha * numbers(exact.Q[0])[allowed]) < 1e-11
    assert apart(found.policy.log_probs.exp(), numbers(exact.policy[0])) < 1e-10
    assert apart(found.initial, numbers(exact.initial)) < 1e-10
    assert apart(found.dynamics(), numbers(exact.dynamics[0])) < 1e-10
    visits = numbers(exact.states[:-1]).sum(0)
    assert apart(found.states[live], visits[live]) < 1e-9
    assert not found.states[~live].any()
    assert found.imagined_return == pytest.approx(float(exact.imagined_return), abs=1e-9)
    assert found.total_tilt == pytest.approx(float(exact.tilt), abs=1e-8)


@settings(max_examples=40)
@example(923, 1.0, math.inf, "hard")
@given(seeds, discounts, optimism, st.sampled_from(["soft", "hard", "boltzmann", "planned"]))
def test_values_are_those_of_a_long_horizon(seed, discount, eta, rule):
    table = table_of(endless(seed, discount, S=4, A=3))
    long = bellman.backward(dataclasses.replace(table, horizon=300), eta, rule)
    if apart(long[0], long[1]) > 1e-3:  # a round trip that pays, where outcomes can be chosen
        with pytest.raises(ValueError, match=r"no (finite|stationary) values"):
            inference.soft_values(table, eta, rule)
        return
    assume(apart(long[0], long[1]) < 1e-14)
    found = inference.soft_values(table, eta, rule)
    assert apart(found.log_values, long[0]) < 1e-12
    assert found.residual < 1e-13
    if rule == "boltzmann":
        assert found.error is None


@settings(max_examples=30)
@given(seeds, discounts)
def test_newton_and_the_linear_system_agree(seed, discount):
    from cai.infinite.fixed_point import fixed_point

    table = table_of(endless(seed, discount, S=6))
    found = fixed_point(table, 1.0)
    assert apart(found.log_values, linear_system(table).log_values) <= found.error + 1e-12


@given(seeds, discounts, st.sampled_from([-0.5, 0.0, 0.7]), st.sampled_from(["soft", "hard"]))
def test_lists_of_successors_and_dense_tables_agree(seed, discount, eta, rule):
    dense = table_of(endless(seed, discount, S=5))
    S, A = dense.num_states, dense.num_actions
    order = torch.from_numpy(np.random.default_rng(seed).permutation(S))
    lists = dataclasses.replace(
        dense,
        successors=order.expand(S, A, S).contiguous(),
        log_dynamics=dense.log_dynamics[..., order],
        arrival_reward=dense.arrival_reward[..., order],
    )
    one, other = (inference.soft_values(table, eta, rule) for table in (dense, lists))
    assert apart(one.V, other.V) < 1e-12
    assert apart(one.states, other.states) < 1e-10
    assert apart(one.dynamics(), other.dynamics()) < 1e-10


@given(seeds, discounts, st.sampled_from([-0.5, 0.0, 0.7]))
def test_relabelling_states_relabels_answers(seed, discount, eta):
    problem = endless(seed, discount, S=5)
    order = np.random.default_rng(seed).permutation(5)
    other = dataclasses.replace(
        problem,
        initial=problem.initial[order],
        prior=problem.prior[order],
        P=problem.P[order][..., order],
        reward=problem.reward[order],
        arrival=problem.arrival[order][..., order],
    )
    assert apart(solve(problem, eta).V[order], solve(other, eta).V) < 1e-12
    assert apart(solve(problem, eta).states[order], solve(other, eta).states) < 1e-10


# Theorems


@settings(max_examples=40)
@given(seeds, discounts, st.sampled_from([-1.0, -0.2, 0.3, 1.0, 2.0]))
def test_the_bound_is_what_it_says_and_rises_at_the_price_of_the_bend(seed, discount, eta):
    """bound = E[Σ rewards/α - Σ KL(π‖prior)] - tilt/η, and its slope is tilt/η²."""
    problem = endless(seed, discount)
    found = solve(problem, eta)
    log_pi = found.policy.log_probs
    actions = (found.states * logspace.kl(log_pi, found.table.log_prior)).sum().item()
    paid = found.imagined_return / problem.temperature - actions - found.total_tilt / eta
    assert found.bound == pytest.approx(paid, abs=1e-10)
    h = 1e-4
    slope = (solve(problem, eta + h).bound - solve(problem, eta - h).bound) / (2 * h)
    assert slope == pytest.approx(found.total_tilt / eta**2, rel=1e-5, abs=1e-8)


@given(seeds, discounts)
def test_a_rule_apart_a_temperature(seed, discount):
    """The hard rule is the soft one as α → 0, with η/α kept.

    The best action costs no more than α log(1/p) a step, less than three of which there are.
    """
    problem = endless(seed, discount)
    hard = solve(problem, 0.3, "hard")
    cold = dataclasses.replace(problem, temperature=1e-4 * problem.temperature)
    least = problem.prior[problem.prior > 0].min()
    price = -3 * cold.temperature * math.log(least)
    assert apart(solve(cold, 0.3 * 1e-4).V, hard.V) <= price + 1e-9


@given(seeds)
def test_deterministic_dynamics_have_no_luck_without_a_discount(seed):
    """V(η = 0) = V(η = 1) at γ = 1; with a discount, death is luck."""
    problem = endless(seed, S=5)
    rng = np.random.default_rng(seed)
    problem.P = np.eye(5)[rng.integers(5, size=(5, 2))]
    problem.P[:, 0] = np.eye(5)[[1, 2, 3, 4, 4]]  # a way to the end
    problem.P[-1] = np.eye(5)[4]
    problem.prior = np.full((5, 2), 0.5)
    problem.reward, problem.arrival = -np.abs(problem.reward), -np.abs(problem.arrival)
    careful, exact = solve(problem, 0.0), solve(problem, 1.0)
    assert apart(careful.V, exact.V) <= careful.error + exact.error
    mortal = dataclasses.replace(problem, discount=0.9)
    careful, exact = solve(mortal, 0.0), solve(mortal, 1.0)
    error = careful.error + exact.error
    assert (exact.V - careful.V).min() >= -error
    # Where every way is over after a step, death comes too late to spare anything; state 0 may
    # lead to state 1, which costs.
    assert exact.V[0] > careful.V[0] + 10 * error


@given(seeds, st.floats(0.5, 0.99))
def test_visits_sum_to_the_expected_lifetime(seed, discount):
    """In the true dynamics, 1/(1-γ); the same for any policy."""
    problem = endless(seed, discount)
    assert solve(problem, 0.0).states.sum().item() == pytest.approx(1 / (1 - discount), rel=1e-9)
    model = model_of(problem)
    worth = cai.evaluate(model, lambda t, s: model.prior(s))
    assert worth.states.sum().item() == pytest.approx(1 / (1 - discount), rel=1e-9)
    assert worth.elbo == pytest.approx(worth.expected_return / problem.temperature, abs=1e-9)


@settings(max_examples=10)
@given(seeds, discounts)
def test_the_curve_is_that_of_a_long_horizon(seed, discount):
    """Bound, slope, worth, and where the policy changes its mind, also at the variance of η = 0."""
    problem = endless(seed, discount, S=4, A=3)
    # Changes are of states in which the policy ever is, which is at first in the long horizon.
    problem.initial = np.full(4, 0.25)
    table = table_of(problem)
    etas = (-0.8, 0.0, 1e-9, 0.7, 2.0)
    found = inference.optimism_curve(table, etas)
    long = inference.optimism_curve(dataclasses.replace(table, horizon=60), etas)
    for name in ("bound", "tilt", "slope", "expected_return", "imagined_return"):
        assert apart(getattr(found, name), getattr(long, name)) < 1e-9
    # Where the long horizon goes on after the end, the policy still pays for its actions there.
    assert found.elbo[1] == pytest.approx(found.bound[1].item(), abs=1e-10)
    assert [(c.s, c.before, c.after) for c in found.changes] == [
        (c.s, c.before, c.after) for c in long.changes
    ]
    etas = [[c.optimism for c in curve.changes] for curve in (found, long)]
    assert etas[0] == pytest.approx(etas[1], abs=1e-6)


# Closed forms


@pytest.mark.parametrize("eta", [-0.69, -0.5, -1e-3, 0.0, 1e-9, 0.5, 1.0, 30.0])
def test_waiting_in_closed_form(eta):
    """E[exp(-ηN)] of the geometric N, the number of steps until it is over."""
    found = inference.soft_values(waiting(), eta)
    if abs(eta) < 1e-6:
        expected = -2.0 + eta / 2 * 2.0  # mean and variance of N are both 2
    else:
        expected = math.log(0.5 * math.exp(-eta) / (1 - 0.5 * math.exp(-eta))) / eta
    assert abs(found.V[0].item() - expected) <= found.error + 4e-16
    again = 0.5 * math.exp(-eta)  # the tilted probability of a step and one more after it
    assert found.states.tolist() == pytest.approx([1 / (1 - again), 0.0], rel=1e-9)


def test_the_curve_of_waiting_ends_at_the_cliff():
    """By default those of 41 optimisms at which values exist; V' is Var[N]/2 = 1 at η = 0."""
    curve = inference.optimism_curve(waiting())
    assert curve.optimism[0].item() == pytest.approx(-2 / 3)  # the next one is -0.818 < -log 2
    assert curve.optimism[-1] == math.inf
    assert len(curve.optimism) == 29
    assert curve.slope[curve.optimism == 0].item() == pytest.approx(1.0, abs=1e-12)
    eta, bound = curve.optimism[:-1], curve.bound[:-1]
    moment = 0.5 * (-eta).exp() / (1 - 0.5 * (-eta).exp())
    expected = torch.where(eta == 0, -2.0, moment.log() / eta)
    assert apart(bound, expected) < 1e-9
    with pytest.raises(ValueError, match=r"optimism -0\.7 .* about -0\.69314"):
        inference.optimism_curve(waiting(), [-0.7, 0.0])


@pytest.mark.parametrize(
    ("cost", "eta"), [(1.0, -0.7), (1.0, -0.8), (1.0, -1.0), (1.0, -math.inf), (-1.0, 0.7)]
)
def test_waiting_breaks_down_at_the_logarithm_of_two(cost, eta):
    """A cost of one is worth waiting for ever to a paranoid, a gain of one to a dreamer."""
    words = r"optimism: .* no finite values at optimism .* about -?0\.69314.* optimism nearer to 0"
    with pytest.raises(ValueError, match=words):
        inference.soft_values(waiting(cost), eta)


def test_at_optimism_one_the_spectral_radius_is_named():
    with pytest.raises(ValueError, match=r"spectral radius .* 1\.35"):  # e/2
        inference.soft_values(waiting(-1.0), 1.0)


def test_a_discount_is_no_guarantee():
    """r = 0.2 and γ = 0.9 diverge at η = 1: γ exp(r) = 1.099; at η = 0 it is r/(1-γ) = 2."""
    model = models.tabular([[[1.0]]], [[0.2]], horizon=None, discount=0.9)
    assert inference.soft_values(model).V.item() == pytest.approx(2.0, abs=1e-12)
    with pytest.raises(ValueError, match=r"spectral radius .* 1\.099"):
        inference.soft_values(model, 1.0)
    edge = -math.log(0.9) / 0.2
    with pytest.raises(ValueError, match=f"found by bisection, is about {edge:.4f}"):
        inference.soft_values(model, 0.9)
    below = inference.soft_values(model, edge - 1e-3)
    z = 0.1 * math.exp(0.2 * below.optimism) / (1 - 0.9 * math.exp(0.2 * below.optimism))
    assert abs(below.V.item() - math.log(z) / below.optimism) <= below.error + 1e-9


def test_the_best_case_is_a_shortest_path_and_the_worst_a_longest():
    """η = ±∞ with the hard rule: one step if it may end, for ever if it need not."""
    P = [[[0.9, 0.1, 0], [0, 0, 1.0]], [[0, 0.5, 0.5], [0, 0.5, 0.5]], [[0, 0, 1.0]] * 2]
    model = models.tabular(P, [[-1.0, -7.0], [-1.0, -1.0], [0, 0]], horizon=None)
    best = inference.soft_values(model, math.inf, "hard")
    assert best.V.tolist() == [-2.0, -1.0, 0.0]
    worst = inference.soft_values(model, -math.inf, "hard")
    assert worst.V.tolist() == [-7.0, -math.inf, 0.0]


@settings(max_examples=30)
@given(seeds, st.sampled_from(["soft", "hard"]), discounts)
def test_the_worst_case_where_the_end_can_be_forced(seed, rule, discount):
    """η = -∞ against a long horizon: a careful way to the end, and ways where nature decides."""
    problem = endless(seed, discount, S=5, A=3)
    problem.P[:, 0] = np.eye(5)[[1, 2, 4, 4, 4]]
    problem.P[-1], problem.reward[-1], problem.arrival[-1] = np.eye(5)[4], 0, 0
    problem.prior = np.full((5, 3), 1 / 3)
    found = solve(problem, -math.inf, rule)
    long = bellman.backward(dataclasses.replace(found.table, horizon=200), -math.inf, rule)
    assume(apart(long[0], long[1]) < 1e-14)
    assert apart(found.log_values, long[0]) <= found.error + 1e-12


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_the_worst_case_that_pays_is_over_at_once(rule):
    model = models.tabular([[[0.5, 0.5]], [[0, 1]]], [[1.0], [0]], horizon=None)
    assert inference.soft_values(model, -math.inf, rule).V.tolist() == [1.0, 0.0]


def test_macqueen_brackets_where_a_norm_is_far_off():
    """The bracket at η = 0 is certain, and much narrower than γ/(1-γ) max |T v - v|."""
    from cai.infinite.bellman_operator import Operator
    from cai.infinite.certificate import certified

    table = table_of(endless(3, 0.95, S=6))
    exact = inference.soft_values(table)
    v = torch.zeros(6, dtype=torch.float64)
    for _ in range(20):
        v = bellman.backup(table, v, 0.0)
    step = Operator.of(table, 0.0, "soft").linear(v)
    near, error = certified(step)
    assert apart(near, exact.log_values) <= error + exact.error
    assert error < 1e-3 * 0.95 / 0.05 * step.residual


# Evaluation and comparison


@settings(max_examples=30)
@given(seeds, discounts)
def test_the_worth_of_a_policy_is_that_of_a_long_horizon(seed, discount):
    model = model_of(endless(seed, discount))
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed)).double()
    log_q = (logits + cai.tabulate(model).log_prior).log_softmax(-1)
    found = cai.evaluate(model, cai.TabularPolicy.from_log_probs(log_q))
    long = cai.evaluate(
        dataclasses.replace(model, horizon=300),
        cai.TabularPolicy.from_log_probs(log_q.expand(300, 3, 2)),
    )
    live = slice(None) if discount < 1 else slice(0, 2)
    assert apart(found.states[live], long.states[:-1].sum(0)[live]) < 1e-10
    assert found.expected_return == pytest.approx(long.expected_return, abs=1e-10)
    if discount < 1:
        assert found.elbo == pytest.approx(long.elbo, abs=1e-10)
        assert found.entropy == pytest.approx(long.entropy, abs=1e-10)


@settings(max_examples=30)
@given(seeds, discounts)
def test_the_gap_is_a_divergence_term_by_term(seed, discount):
    """log p(O) - ELBO = KL of start, actions and dynamics, also without an end."""
    model = model_of(endless(seed, discount))
    exact, best = inference.soft_values(model, 1.0), inference.soft_values(model)
    report = cai.compare(
        model, {"exact": exact, "best": best, "prior": lambda t, s: model.prior(s)}
    )
    for row in report.rows.values():
        parts = row.kl_start + row.kl_actions + row.kl_dynamics
        assert report.log_evidence - row.elbo == pytest.approx(parts, abs=1e-9)
    assert report.log_evidence == exact.log_evidence
    assert report.rows["best"].elbo == pytest.approx(best.elbo, abs=1e-10)
    assert report.rows["best"].elbo >= report.rows["prior"].elbo - 1e-10
    assert report.rows["exact"].optimism_gap >= 0


def test_where_evidence_is_infinite_rows_are_still_compared():
    """At optimism 1 there is no posterior; at 0 there is a best policy."""
    model = waiting(-1.0)
    report = cai.compare(model, {"best": inference.soft_values(model)})
    assert report.log_evidence is None
    assert report.rows["best"].elbo == pytest.approx(2.0)


def test_policies_that_never_end_or_change_with_time():
    P = [[[1.0, 0], [0, 1.0]], [[0, 1.0]] * 2]
    model = models.tabular(P, [[-1.0, -1.0], [0, 0]], horizon=None)
    stay = cai.TabularPolicy.from_log_probs(torch.tensor([[0.0, -math.inf]] * 2).double())
    with pytest.raises(ValueError, match=r"policy: the trajectory never ends .* in state 0"):
        cai.evaluate(model, stay)
    fickle = cai.TabularPolicy.from_log_probs(torch.randn(5, 2, 2).double().log_softmax(-1))
    with pytest.raises(ValueError, match=r"policy: "):
        cai.evaluate(model, fickle)
    turning = lambda t, s: dist.Categorical(  # noqa: E731
        logits=torch.stack([1.0 * t + 0.0 * s, 0.0 * t + 0.0 * s], -1)
    )
    with pytest.raises(ValueError, match=r"policy: an infinite horizon needs a stationary policy"):
        cai.evaluate(model, turning)


# What is at the edge


@pytest.mark.parametrize("rule", ["soft", "hard", "boltzmann", "planned"])
@pytest.mark.parametrize("eta", [-math.inf, -1.0, 0.0, 1.0, math.inf])
def test_where_all_states_absorb(eta, rule):
    found = inference.soft_values(
        models.tabular(torch.eye(3).unsqueeze(1), torch.zeros(3, 1), horizon=None), eta, rule
    )
    assert found.V.tolist() == [0.0] * 3
    assert found.states.tolist() == [0.0] * 3
    assert found.bound == found.imagined_return == found.entropy == 0


@pytest.mark.parametrize("eta", [-0.3, 0.0, 0.5, 1.0])
def test_what_cannot_be_reached_or_left(eta):
    """State 1 is a trap that costs, state 3 has no way in, state 4 only leads into the trap."""
    P = torch.zeros(5, 2, 5)
    P[0, 0, 0] = P[0, 0, 2] = 0.5
    P[0, 1, 1] = P[1, :, 1] = P[2, :, 2] = P[3, :, 2] = P[4, :, 1] = 1
    r = torch.tensor([[-1.0, -1.0], [-1.0, -1.0], [0, 0], [-1.0, -math.inf], [-1.0, -1.0]])
    prior = torch.tensor([0.5, 0.5])
    model = models.tabular(P, r, horizon=None, action_prior=prior, initial=[1, 0, 0, 0, 0])
    found = inference.soft_values(model, eta)
    assert found.V[[1, 4]].tolist() == [-math.inf] * 2
    assert found.V[[2, 3]].tolist() == pytest.approx([0.0, -1.0 - math.log(2)])
    mean = logspace.soft_mean(torch.tensor([0.5, 0.5]).double().log(), found.V[[0, 2]], eta)
    assert found.V[0].item() == pytest.approx(-1.0 - math.log(2) + mean.item(), abs=1e-12)
    assert found.policy.log_probs.exp()[0].tolist() == [1.0, 0.0]
    assert found.states[3] == 0
    for field in (found.Q, found.states, found.state_actions, found.dynamics(), found.tilt()):
        assert not field.isnan().any()


@pytest.mark.parametrize("eta", [-0.3, 0.0, 1e-6, 0.5, 1.0])
def test_a_trap_that_only_luck_avoids(eta):
    """Even odds of a trap that costs for ever: lost without luck, log(½)/η - 1 with it."""
    P = [[[0.0, 0.5, 0.5]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]
    model = models.tabular(P, [[-1.0], [-1.0], [0.0]], horizon=None)
    found = inference.soft_values(model, eta)
    expected = -math.inf if eta <= 0 else -1.0 + math.log(0.5) / eta
    assert found.V[0].item() == pytest.approx(expected, rel=1e-12)
    assert found.bound == found.V[0].item()
    if eta > 0:
        assert found.states.tolist() == [1.0, 0.0, 0.0]
    else:
        with pytest.raises(ValueError, match=r"never ends once it is in state"):
            found.states  # noqa: B018


@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize("eta", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("cost", [1e-6, 1e6])
def test_any_scale_of_rewards(eta, rule, cost):
    """One way that costs, and one that costs twice as much, both sure to end."""
    P = torch.zeros(2, 2, 2)
    P[..., 1] = 1
    found = inference.soft_values(
        models.tabular(P, [[-cost, -2 * cost], [0, 0]], horizon=None), eta, rule
    )
    expected = -cost
    if rule == "soft":
        expected = math.log(0.5 + 0.5 * math.exp(-cost)) - cost
    assert found.V[0].item() == pytest.approx(expected, rel=1e-12)
    assert found.error <= 1e-9 * max(1.0, cost)


@pytest.mark.parametrize("eta", [-1e-6, 0.0, 1e-6])
def test_a_discount_close_to_one(eta):
    """1/(1-γ) = 1e6 steps; value iteration would need as many sweeps."""
    P = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    found = inference.soft_values(
        models.tabular(P, [[1.0], [-1.0]], horizon=None, discount=1 - 1e-6), eta
    )
    assert found.V[0].item() == pytest.approx(1 / (2 - 1e-6), abs=1e-5)
    assert found.error < 1e-6


@pytest.mark.parametrize(
    ("P", "r", "changes", "dial", "words"),
    [
        ([[[1.0]]], [[-1.0]], {}, (0.0,), r"evidence: p\(O\) = 0"),
        ([[[1.0]]], [[1.0]], {}, (0.0,), r"state 0, .* gains 1 in reward per step.*average_reward"),
        ([[[1.0], [1.0]]], [[1.0, -1.0]], {}, (0.0, "hard"), "gains 1 in reward per step"),
        ([[[1.0]]], [[-math.inf]], {"discount": 0.9}, (0.0,), r"evidence: p\(O\) = 0"),
        (
            [[[1.0, 0], [0, 1.0]], [[0, 1.0]] * 2],
            [[0.0, -1.0], [0.0, 0.0]],
            {},
            (0.0, "hard"),
            "go on for ever at no cost",
        ),
    ],
)
def test_why_there_are_no_values(P, r, changes, dial, words):
    with pytest.raises(ValueError, match=words):
        inference.soft_values(models.tabular(P, r, horizon=None, **changes), *dial)


def test_a_final_reward_is_never_paid():
    message = r"final_reward: expected None with an infinite horizon"
    with pytest.raises(ValueError, match=message):
        models.tabular([[[1.0]]], [[0.0]], final_reward=[1.0], horizon=None)
    table = cai.tabulate(models.tabular([[[1.0]]], [[0.0]], final_reward=[1.0], horizon=2))
    with pytest.raises(ValueError, match="final_reward: expected none"):
        inference.soft_values(dataclasses.replace(table, horizon=None))


def test_what_needs_an_end_says_so():
    model = waiting()
    found = inference.soft_values(model, 1.0)
    for ask in (
        lambda: found.sample(3),
        lambda: found.marginal("s_1"),
        lambda: found.log_forward,
        lambda: found.at(0),
        lambda: inference.map_trajectory(model),
        lambda: inference.robust(model, budget=0.1),
        lambda: inference.renyi_bound(model, found.policy, 0.5),
    ):
        with pytest.raises(ValueError, match=r"horizon: .* finite number of steps"):
            ask()
    with pytest.raises(ValueError, match=r"horizon: .*soft_values\(model, optimism=1\)"):
        inference.posterior(model)
    with pytest.raises(ValueError, match=r"recompute: expected a finite horizon"):
        inference.soft_values(model, recompute=True)


@pytest.mark.parametrize("habit", [2.0, 10.0])
def test_the_boltzmann_rule_may_run_in_circles(habit):
    """Stay for -5, or leave: ∂T/∂v = π(1 + (1-π)(q_stay - q_leave)), at the fixed point below -1.

    Where the prior is for staying by exp(10), both are as likely where q_stay - q_leave = -10, and
    the derivative is ½(1 - 5) = -2; values swing about -5 for ever.
    """
    prior = [1.0, math.exp(-habit)]
    P = [[[1.0, 0], [0, 1.0]], [[0, 1.0]] * 2]
    model = models.tabular(P, [[-5.0, 0.0], [0, 0]], horizon=None, action_prior=prior)
    if habit == 10:
        with pytest.raises(ValueError, match=r"rule: the Boltzmann rule has no stationary values"):
            inference.soft_values(model, 0.0, "boltzmann")
    else:
        found = inference.soft_values(model, 0.0, "boltzmann")
        v = bellman.backup(found.table, found.log_values, 0.0, "boltzmann")
        assert found.error is None
        assert found.residual < 1e-13
        assert apart(v, found.log_values) == pytest.approx(found.residual, abs=1e-15)


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("eta", [-1.0, 0.0, 0.5, 1.0])
def test_a_long_way_into_a_reward_of_minus_infinity(eta, discount):
    """State 1 costs nothing but leads to state 2, which does; none of it is ever seen."""
    P = np.eye(4)[[3, 2, 2, 3]][:, None]
    r = [[-1.0], [0.0], [-math.inf], [0.0]]
    model = models.tabular(P, r, horizon=None, discount=discount, initial=[1.0, 0, 0, 0])
    v = inference.soft_values(model, eta).V.tolist()
    death = math.log1p(-discount) / eta if discount < 1 and eta > 0 else -math.inf
    assert v == pytest.approx([-1.0, death, -math.inf, 0.0], abs=1e-12)


def test_any_size_of_values_in_nats():
    """A million a step at a temperature of 1e-9: 2e15 nats, and as many digits as ever."""
    found = inference.soft_values(waiting(1e6, temperature=1e-9))
    assert abs(found.V[0].item() + 2e6) <= found.error < 1e-6


@pytest.mark.parametrize("eta", [0.0, 1e-16])
def test_an_end_that_comes_too_late_is_not_called_free(eta):
    model = models.tabular([[[1.0, 1e-17]], [[0, 1.0]]], [[-1.0], [0]], horizon=None)
    words = r"horizon: .* too late .* from state 0, .* fall by 1 in reward per step"
    with pytest.raises(ValueError, match=words):
        inference.soft_values(model, eta)


@pytest.mark.parametrize("eta", [1e8, 1e20, math.inf])
def test_a_circle_that_only_death_makes_dear_is_no_critical_optimism(eta):
    """To go round costs log(γ)/η, and nothing at infinity: v = max(1e6, v) has many roots."""
    P = np.eye(2)[[[1, 0], [1, 1]]]
    r = [[1e6, 0.0], [0, 0]]
    model = models.tabular(P, r, horizon=None, discount=1 - 1e-6)
    assert inference.soft_values(model, 1.0, "hard").V[0].item() == pytest.approx(1e6)
    if eta < math.inf:
        assert inference.soft_values(model, eta, "hard").V[0].item() == pytest.approx(1e6)
        return
    with pytest.raises(ValueError, match=r"optimism: .* are not determined in float64"):
        inference.soft_values(model, eta, "hard")


def test_the_critical_optimism_is_found_by_few_sweeps(monkeypatch):
    """To the digits that are named, on a windy grid, where a search from afar takes thousands."""
    n, wind = 6, 0.2
    cell = np.arange(n * n)
    moves = [np.clip(cell % n + dx, 0, n - 1) + n * np.clip(cell // n + dy, 0, n - 1)
             for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1))]  # fmt: skip
    P = np.zeros((n * n, 4, n * n))
    for a in range(4):
        for b, p in ((a, 1 - wind), ((a + 1) % 4, wind / 2), ((a + 3) % 4, wind / 2)):
            P[cell, a, moves[b]] += p
    P[-1] = np.eye(n * n)[-1]
    r = -np.ones((n * n, 4))
    r[-1] = 0
    table = cai.tabulate(models.tabular(P, r, horizon=None))
    sweeps, backup = [], bellman.backup
    monkeypatch.setattr(bellman, "backup", lambda *args: sweeps.append(1) or backup(*args))
    with pytest.raises(ValueError, match=r"critical optimism .* is about -0\.\d+") as raised:
        inference.soft_values(table, -2.0)
    assert len(sweeps) < 4000
    edge = float(str(raised.value).split("is about ")[1].split(";")[0])
    assert math.isfinite(inference.soft_values(table, 0.9999 * edge).bound)
    with pytest.raises(ValueError, match="critical optimism"):
        inference.soft_values(table, 1.0001 * edge)


def test_a_comparison_keeps_the_certificate_of_its_posterior():
    model = waiting()
    exact = inference.soft_values(model, 1.0)
    found = cai.compare(model, {"best": inference.soft_values(model)}).posterior
    assert abs(found.V - exact.V).max() <= found.error + exact.error < 1e-11
    mixed = inference.compose([exact, found], [0.5, 0.5])
    assert max(exact.error, found.error) < mixed.error < 1e-11


def test_weights_that_sum_to_one_but_for_rounding_leave_absorbing_states_at_zero():
    exact = inference.soft_values(waiting(), 1.0)
    mixed = inference.compose([exact, exact], [0.5, 0.5 + 9e-10])
    assert apart(mixed.V, exact.V) <= exact.error + mixed.error
    assert abs(mixed.V[1].item()) <= mixed.error
    doubtful = dataclasses.replace(exact, error=None)
    assert inference.compose([exact, doubtful], [0.5, 0.5]).error is None


def test_policies_that_change_their_mind_late_are_not_stationary():
    """And tables of any number of steps are said to change, not to be made for another model."""
    model = waiting()
    late = lambda t, s: dist.Categorical(  # noqa: E731
        logits=torch.stack([torch.where(t > 50, 5.0, 0.0) + 0.0 * s, 0.0 * t + 0.0 * s], -1)
    )
    two = models.tabular(
        [[[1.0, 0], [0, 1.0]], [[0, 1.0]] * 2], -torch.eye(2)[[0, 0]], horizon=None
    )
    with pytest.raises(ValueError, match=r"policy: an infinite horizon needs a stationary policy"):
        cai.evaluate(two, late)
    changing = cai.TabularPolicy.from_log_probs(torch.randn(5, 2, 2).double().log_softmax(-1))
    with pytest.raises(ValueError, match=r"policy: an infinite horizon needs a stationary policy"):
        cai.evaluate(two, changing)
    with pytest.raises(ValueError, match=r"horizon: fit needs a finite number of steps"):
        inference.fit(model, cai.TabularPolicy(model, stationary=True), steps=2, progress=False)


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_a_discount_close_to_one_takes_no_digits_where_the_end_is_near(rule):
    """Two steps on average until it is over, and 1e10 until death."""
    found = inference.soft_values(waiting(discount=1 - 1e-10), 0.0, rule)
    exact = -1 / (1 - 0.5 * found.table.discount)
    assert abs(found.V[0].item() - exact) <= found.error < 1e-12

"""Robustness: a budget of nats against the policy, and attacks within it.

The worst case of a fixed policy comes from a dual of one multiplier over the tree of histories,
written here without the library; its own tilted chain then proves it exact, path by path.
"""

import dataclasses
import itertools
import math

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

import cai
from cai import inference, models

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
budgets = st.floats(-4, 1).map(lambda exponent: 10**exponent)


def random_policy(seed, problem):
    """A random policy [t][s][a] on the actions that the prior allows."""
    rng = np.random.default_rng(seed)
    weights = rng.random((problem.T, *problem.sizes)) ** 2 * (np.asarray(problem.prior) > 0)
    return weights / weights.sum(-1, keepdims=True)


def policy_of(found):
    return found.policy.log_probs.exp().numpy()


def worth(problem, policy, start, dynamics):
    """E_q[Σ rewards/α - Σ log π/p] and the nats of bending, by sums over the paths of q."""
    value = tilt = 0.0
    for path in oracles.paths(problem, start, policy, dynamics):
        nats = math.log(start[path.states[0]] / problem.initial[path.states[0]])
        steps = zip(path.states, path.actions, path.states[1:], strict=False)
        for t, (s, a, n) in enumerate(steps):
            on = path.alive_at(t + 1)
            coin = problem.discount if on else 1 - problem.discount
            nats += math.log(dynamics[0 if on else 1][t][s][a][n] / (problem.P[s][a][n] * coin))
        soft = path.reward / problem.temperature - oracles.log_ratio(problem, path, policy)
        value += path.probability * soft
        tilt += path.probability * nats
    return value, tilt


class Nature:
    """The adversary of a fixed policy at a price of λ nats a nat: its value and its chain.

    It may look at the whole history, each of which is a node of the tree; as it turns out the last
    state is all that matters, so that its chain can be written as [t][s][a][s'].
    """

    def __init__(self, problem, policy, price):
        self.problem, self.policy, self.price = problem, policy, price
        S, A = problem.sizes
        self.on, self.off = (np.zeros((problem.T, S, A, S)) for _ in range(2))
        worths = [(p, self._state(s, 0)) for s, p in enumerate(problem.initial) if p > 0]
        self.value, shares = self._choose(worths)
        self.start = np.zeros(S)
        self.start[[s for s, p in enumerate(problem.initial) if p > 0]] = shares

    def _choose(self, worths):
        """min over q of Σ q x + λ KL(q‖p), for pairs (p, x)."""
        p, x = np.array(worths).T
        if self.price == 0:
            worst = p * (x == x.min())
            return x.min(), worst / worst.sum()
        u = -(x - x.min()) / self.price
        total = (p * np.exp(u)).sum()
        return x.min() - self.price * math.log(total), p * np.exp(u) / total

    def _state(self, s, t):
        problem, alpha = self.problem, self.problem.temperature
        if t == problem.T:
            return problem.final[s] / alpha
        value = 0.0
        for a, q in enumerate(self.policy[t][s]):
            if q == 0:
                continue
            outcomes, places = [], []
            for n, p in enumerate(problem.P[s][a]):
                arrival = problem.arrival[s][a][n] / alpha
                for side, coin in ((self.on, problem.discount), (self.off, 1 - problem.discount)):
                    if p * coin > 0:
                        onward = self._state(n, t + 1) if side is self.on else 0.0
                        outcomes.append((p * coin, arrival + onward))
                        places.append((side, n))
            after, shares = self._choose(outcomes)
            for (side, n), share in zip(places, shares, strict=True):
                side[t, s, a, n] = share
            value += q * (problem.reward[s][a] / alpha - math.log(q / problem.prior[s][a]) + after)
        return value


def worst_case(problem, policy, budget):
    """min over q within the budget of E_q[soft return] = max over λ of value(λ) - λρ, concave.

    λ = 0 is looked at by itself: it is the answer where the budget is more than can be used, and
    the least λ of the search would be short of it by as many times the budget.
    """
    found = minimize_scalar(
        lambda u: math.exp(u) * budget - Nature(problem, policy, math.exp(u)).value,
        bounds=(-12, 14),
        method="bounded",
        options={"xatol": 1e-7},
    )
    free = Nature(problem, policy, 0.0)
    if free.value >= -found.fun:
        return free.value, free
    return -found.fun, Nature(problem, policy, math.exp(found.x))


@settings(max_examples=10)
@given(seed=seeds, discount=discounts, budget=st.floats(0.001, 0.3))
def test_the_worst_case_of_the_tests_is_one(seed, discount, budget):
    """Primal and dual meet, path by path, unless the multiplier ran into its limits."""
    problem = oracles.random_problem(seed, S=2, T=2, discount=discount)
    policy = random_policy(seed, problem)
    dual, nature = worst_case(problem, policy, budget)
    value, tilt = worth(problem, policy, nature.start, (nature.on, nature.off))
    if 1e-4 < nature.price < 1e5:
        assert tilt == pytest.approx(budget, rel=1e-3)
        assert value == pytest.approx(dual, abs=1e-3 * max(1, nature.price) * budget)


@settings(max_examples=15)
@given(seed=seeds, discount=discounts, budget=budgets)
def test_no_attack_within_the_budget_gets_below_and_other_policies_do_worse(seed, discount, budget):
    """The worst case of the policy is the value that it was promised; minimax."""
    problem = oracles.random_problem(seed, S=2, T=2, discount=discount)
    table = cai.tabulate(problem.model())
    found = inference.robust(table, budget)
    price = inference.soft_values(table).bound - found.value
    worst, _ = worst_case(problem, policy_of(found), budget)
    assert worst == pytest.approx(found.value, abs=2e-3 * price + 1e-7)
    others = [policy_of(inference.soft_values(table, eta)) for eta in (-5.0, -0.5, 0.0, 1.0)]
    others += [np.broadcast_to(problem.prior, (problem.T, *problem.sizes))]
    others += [random_policy(seed, problem)]
    others += [0.9 * policy_of(found) + 0.1 * others[-1]]
    for policy in others:
        assert worst_case(problem, policy, budget)[0] <= found.value + 2e-3 * price + 1e-7


@settings(max_examples=10)
@given(seed=seeds, discount=discounts, budget=st.floats(0.001, 0.5))
def test_random_attacks_scaled_to_the_budget(seed, discount, budget):
    """q ∝ p exp(β noise), with β such that it spends the budget, or all that it can."""
    problem = oracles.random_problem(seed, S=2, T=2, discount=discount)
    found = inference.robust(problem.model(), budget)
    policy, rng = policy_of(found), np.random.default_rng(seed)
    V = found.solution.log_values.numpy()
    P, gamma = np.asarray(problem.P), problem.discount
    on, off = P * gamma, P * (1 - gamma)
    for scale in (0.0, 1.0, 10.0):
        noise = rng.normal(size=(3, problem.T, *P.shape))
        against = (scale * noise[0] - V[1:, None, None, :], scale * noise[1], noise[2, 0, 0, 0])

        def chain(beta, against=against):
            start = np.asarray(problem.initial) * np.exp(beta * (against[2] - V[0]))
            both = [
                np.where(p > 0, beta * x, -np.inf) for p, x in ((on, against[0]), (off, against[1]))
            ]
            top = np.maximum(*both).max(-1, keepdims=True)  # of what is possible: no overflow
            tilted = on * np.exp(both[0] - top), off * np.exp(both[1] - top)
            total = (tilted[0] + tilted[1]).sum(-1, keepdims=True)
            return start / start.sum(), (tilted[0] / total, tilted[1] / total)

        def excess(beta):
            return worth(problem, policy, *chain(beta))[1] - budget

        beta = brentq(excess, 0, 20) if excess(20) > 0 else 20.0
        value, tilt = worth(problem, policy, *chain(beta))
        assert tilt <= budget + 1e-9
        assert value >= found.value - 1e-9


def resolution(found):
    """Nats that the tilt can be told apart by: as closely as η is solved for, and tilts are summed.

    log λ = -log|η| is known to 1e-14 of itself, and moves the tilt by its derivative. Each of the
    outcomes that the tilt sums bends by |η V|, of which rounding takes ε.
    """
    table, eta, V = found.solution.table, found.optimism, found.solution.log_values
    h = 1e-5
    tilts = [inference.soft_values(table, eta * (1 + k * h)).total_tilt for k in (-1, 1)]
    slope = abs(tilts[1] - tilts[0]) / (2 * h)
    steps = table.steps * (2 * table.num_states + 4)
    rounding = steps * np.finfo(float).eps * (1 + abs(eta) * V[V.isfinite()].abs().max().item())
    return 1e-14 * (1 + abs(math.log(-eta))) * slope + rounding


@given(make=makes, seed=seeds, discount=discounts, budget=budgets)
def test_the_budget_is_spent_and_nothing_guarantees_more(make, seed, discount, budget):
    """tilt = ρ unless η = -∞, and h(λ) = bound_{-1/λ} - λρ is nowhere higher."""
    table = cai.tabulate(make(seed, discount=discount).model())
    found = inference.robust(table, budget)
    if math.isfinite(found.optimism):
        assert found.solution.total_tilt == pytest.approx(budget, abs=resolution(found))
        assert found.value == pytest.approx(found.solution.bound + budget / found.optimism)
    nominal = inference.soft_values(table).bound
    assert found.value <= nominal
    for eta in [-(10.0**k) for k in range(-4, 5)]:
        other = inference.soft_values(table, eta).bound + budget / eta
        assert other <= found.value + 1e-3 * (nominal - found.value) + 1e-10


@settings(max_examples=8)
@given(seed=seeds, budget=budgets)
def test_against_every_policy_of_one_decision(seed, budget):
    """max over the probability of one action of the worst case: a search without the dial."""
    problem = oracles.random_problem(seed, S=3, T=1, forbidden=0, zeros=0)
    problem = dataclasses.replace(problem, initial=np.array([1.0, 0.0, 0.0]))
    found = inference.robust(problem.model(), budget)

    def worst(p):
        return worst_case(problem, np.array([[[p, 1 - p]] * 3]), budget)[0]

    # With all its budget nature may have a kink here: what is missed of p counts once, not squared.
    best = minimize_scalar(
        lambda p: -worst(p), bounds=(1e-9, 1 - 1e-9), method="bounded", options={"xatol": 1e-9}
    )
    assert found.value == pytest.approx(-best.fun, abs=1e-5 + 1e-3 * abs(found.value))
    assert found.value >= worst(best.x) - 1e-3 * abs(found.value) - 1e-6


def test_of_several_optimisms_that_match_the_budget_only_the_best_is_minimax():
    """On the ledge caution leaves little to tilt: the tilt of 0.02 nats is had at two η < 0."""
    model = models.ledge()
    budget = 0.02

    def excess(eta):
        return inference.soft_values(model, eta).total_tilt - budget

    roots = [brentq(excess, *ends) for ends in ((-20.0, -0.5), (-0.5, -0.01))]
    values = [inference.soft_values(model, eta).bound + budget / eta for eta in roots]
    found = inference.robust(model, budget)
    assert roots[1] == pytest.approx(found.optimism, abs=1e-8)
    assert values[1] == pytest.approx(found.value, abs=1e-10)
    assert values[0] < found.value - 1e-3


def test_a_little_more_budget_may_be_all_that_it_takes():
    """Where no adversary can use the budget against caution, η jumps to -∞; the value does not."""
    model = models.ledge()
    found = [inference.robust(model, budget) for budget in np.linspace(0.015, 0.035, 21)]
    optimisms, values = [f.optimism for f in found], [f.value for f in found]
    assert all(b <= a for a, b in itertools.pairwise(optimisms))
    assert min(eta for eta in optimisms if math.isfinite(eta)) > -0.35
    assert optimisms[-1] == -math.inf
    # A maximum of lines in the budget, of slope 1/η: convex, so continuous.
    losses = [a - b for a, b in itertools.pairwise(values)]
    assert all(0 <= later <= loss < 8e-3 for loss, later in itertools.pairwise(losses))


@pytest.mark.parametrize("budget", [1e-12, 1e-8, 1e-4])
def test_small_budgets_cost_the_square_root(budget):
    """price = 2 √(ρ slope), η = -√(ρ/slope), with the slope of the bound at η = 0."""
    model = models.lottery(chance=0.3, prize=2.0)
    found = inference.robust(model, budget)
    curve = inference.optimism_curve(model, [0.0])
    slope = curve.slope.item()
    assert found.optimism == pytest.approx(-math.sqrt(budget / slope), rel=0.05)
    price = 2 * math.sqrt(budget * slope)
    assert curve.bound.item() - found.value == pytest.approx(price, rel=0.05)


def test_all_but_a_trace_of_what_can_be_used():
    """A fair coin takes log 2 nats to decide; a little less, and η is finite for any tolerance."""
    P = np.zeros((3, 1, 3))
    P[0, 0, [1, 2]] = 0.5
    P[[1, 2], 0, [1, 2]] = 1
    model = models.tabular(P, np.zeros((3, 1)), horizon=1, final_reward=[0.0, 1.0, -1.0])
    for less in (1e-3, 1e-6, 1e-9):
        found = inference.robust(model, math.log(2) - less, tolerance=0.9)
        assert math.isfinite(found.optimism)
        assert found.solution.total_tilt == pytest.approx(math.log(2) - less, abs=1e-12)
    assert inference.robust(model, math.log(2), tolerance=1e-3).optimism == -math.inf


def test_no_budget_and_all_of_it():
    model = models.ledge()
    nothing = inference.robust(model, 0.0)
    assert nothing.optimism == 0
    assert nothing.value == pytest.approx(inference.soft_values(model).bound, abs=1e-14)
    for budget in (1e3, math.inf):
        found = inference.robust(model, budget)
        assert found.optimism == -math.inf
        worst = inference.soft_values(model, -math.inf).bound
        assert found.value == pytest.approx(worst, abs=1e-14)
    # Where nothing is random there is nothing to tilt.
    sure = inference.robust(models.ledge(gives_way=0.0), 0.1)
    certain = inference.soft_values(models.ledge(gives_way=0.0)).bound
    assert sure.value == pytest.approx(certain, abs=1e-14)


def test_where_nothing_can_be_guaranteed():
    P = [[[0.5, 0.5]], [[0.0, 1.0]]]
    model = models.tabular(P, [[0.0], [0.0]], horizon=1, final_reward=[0.0, -math.inf])
    assert inference.robust(model, 0.1).value == -math.inf


def test_a_reward_of_minus_infinity_that_can_be_avoided():
    """The deadly action is out from the start; what is left is a coin, tilted by 0.1 nats."""
    P = np.zeros((4, 2, 4))
    P[0, 0, [1, 2]], P[0, 1, [1, 3]] = 0.5, 0.5
    P[[1, 2, 3], :, [1, 2, 3]] = 1
    model = models.tabular(P, np.zeros((4, 2)), horizon=1, final_reward=[0.0, 1.0, -1.0, -math.inf])
    found = inference.robust(model, 0.1)
    tails = brentq(
        lambda q: q * math.log(2 * q) + (1 - q) * math.log(2 * (1 - q)) - 0.1, 0.5, 1 - 1e-9
    )
    assert found.value == pytest.approx(math.log(0.5) + 1 - 2 * tails, abs=1e-9)


def test_compare_takes_the_solution_and_the_policy():
    found = inference.robust(models.ledge(), 0.02)
    report = cai.compare(models.ledge(), {"robust": found.solution, "its policy": found})
    assert report["robust"].imagined_bound == found.solution.bound
    assert report["its policy"].elbo == report["robust"].elbo
    assert report["robust"].elbo >= found.value
    said = "budget=0.02 nats, optimism=-0.193932, value=-3.64715 nats"
    assert repr(found) == f"RobustSolution({said})"


@pytest.mark.parametrize("budget", [-0.1, math.nan])
def test_bad_budgets(budget):
    with pytest.raises(ValueError, match="budget: expected a number of nats ≥ 0"):
        inference.robust(models.ledge(), budget)


def test_bad_tolerance():
    with pytest.raises(ValueError, match="tolerance: expected a finite number above 0"):
        inference.robust(models.ledge(), 0.1, tolerance=0.0)


@pytest.mark.parametrize(
    "method",
    [
        inference.effective_sample_ceiling,
        lambda model: inference.robust(model, 0.1),
    ],
)
def test_the_dial_needs_a_horizon(method):
    with pytest.raises(ValueError, match=r"horizon: .* needs a finite number of steps"):
        method(models.ledge(horizon=None))

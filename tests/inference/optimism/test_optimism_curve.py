"""The dial against as many digits as it takes, and the curve that it draws."""

import itertools
import math

import numpy as np
import oracles
import precise
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models

EPS = 2.0**-52
TINY = (5e-324, 1e-300, 1e-30, 1e-12, 1e-8, 1e-4, 0.01, 0.0999, 0.1)
LARGE = (0.5, 1.0, 3.0, 1e3, 1e8, 1e15, 1e200, 1.7e308, math.inf)
BOTH = [sign * eta for eta in (*TINY, *LARGE) for sign in (1, -1)]


def numbers(x):
    return np.array(x, dtype=object).astype(float)


def apart(found, expected):
    """The largest difference; equal infinities are none, and NaN is the worst."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert not np.isnan(found).any()
    with np.errstate(invalid="ignore"):
        return np.where(found == expected, 0.0, np.abs(found - expected)).max()


def check(problem, eta):
    """Values, policy, tilted start and dynamics, occupancies and returns, against mpmath.

    A value of v nats is known to v rounding errors, and ηv is what the tilted chain hangs on.
    """
    exact = precise.Dial(problem, eta)
    found = inference.soft_values(problem.model(), eta)
    values = numbers(exact.V)
    error = 50 * EPS * max(1.0, np.abs(values[np.isfinite(values)]).max(initial=0))
    assert apart(found.log_values, values) <= error
    bound = float(exact.bound)  # log p/η where the start is hopeless but for a share p
    size = max(1.0, abs(bound)) if math.isfinite(bound) else 1.0
    assert apart(found.bound, bound) <= max(error, 50 * EPS * size)
    assert apart(found.policy.log_probs.exp(), numbers(exact.policy)) <= error
    if exact.bound > -math.inf:  # else there is nothing that nature has to do
        error *= max(1.0, abs(eta)) if math.isfinite(eta) else 1.0
        assert apart(found.initial, numbers(exact.initial)) <= error
        for t, dynamics in enumerate(exact.dynamics):
            alive = np.isfinite(numbers(exact.Q[t]))[..., None]
            expected = np.where(alive, numbers(dynamics), found.dynamics(t))
            assert apart(found.dynamics(t), expected) <= error
        assert apart(found.states, numbers(exact.states)) <= error
        expected = float(exact.imagined_return)
        assert abs(found.imagined_return - expected) <= error * max(1.0, abs(expected))
        assert abs(found.total_tilt - float(exact.tilt)) <= 50 * error


@pytest.mark.parametrize("eta", BOTH)
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_against_mpmath(eta, discount):
    for scale, seed in ((1.0, 0), (1e6, 1), (1e-6, 2)):
        check(oracles.random_problem(seed, S=2, T=2, discount=discount, scale=scale), eta)


@pytest.mark.parametrize("eta", [0.0, *BOTH[6::4]])
def test_small_shapes_against_mpmath(eta):
    """One state, one action, one step, a coin that almost always or almost never kills."""
    for S, A, T, discount in (
        (1, 1, 2, 1.0),
        (1, 2, 1, 0.5),
        (2, 1, 1, 1e-9),
        (3, 1, 2, 1 - 1e-12),
    ):
        check(oracles.random_problem(3, S=S, A=A, T=T, discount=discount), eta)


@pytest.mark.parametrize("eta", [-math.inf, -1e8, -1.0, -1e-8, 0.0, 1e-8, 0.3, 1.0, 1e8, math.inf])
def test_the_oracle_by_all_paths(eta):
    """mpmath's recursion is its own sum over all paths, the Rényi bound of its policy."""
    problem = oracles.random_problem(4, S=2, T=2, discount=0.8, scale=1e3)
    exact = precise.Dial(problem, eta)
    value = precise.renyi(problem, exact.policy, eta)
    assert float(abs(value - exact.bound)) <= 1e-30


@given(
    seed=st.integers(0, 10**6),
    discount=st.sampled_from([1.0, 0.7]),
    eta=st.sampled_from([0.0, *BOTH[4:]]),  # log P/η is no float below
)
def test_forbidden_outcomes_against_mpmath(seed, discount, eta):
    """Rewards of -inf for acting, on arrival and at the end; dead ends."""
    problem = oracles.random_problem(seed, S=2, T=2, discount=discount)
    rng = np.random.default_rng(seed)
    for name, share in (("reward", 0.25), ("arrival", 0.15), ("final", 0.25)):
        numbers = getattr(problem, name)
        numbers[rng.random(numbers.shape) < share] = -math.inf
    if precise.Dial(problem, math.inf).bound == -math.inf:
        with pytest.raises(ValueError, match=r"p\(O\) = 0"):
            inference.soft_values(problem.model(), eta)
        return
    check(problem, eta)


def test_a_small_risk_of_the_worst_at_a_small_optimism():
    """log(1 - 1e-12)/η keeps its digits, which are few in a logarithm of a number close to one."""
    P = [[[1 - 1e-12, 1e-12]], [[0.0, 1.0]]]
    model = models.tabular(P, [[0.0], [0.0]], horizon=1, final_reward=[0.25, -math.inf])
    for eta in (1e-8, 1e-4):
        found = inference.soft_values(model, eta).bound
        assert found == pytest.approx(0.25 + math.log1p(-1e-12) / eta, abs=1e-12)
    assert inference.soft_values(model, -1e-8).bound == -math.inf


@pytest.mark.parametrize("eta", [-math.inf, -2.0, -1e-8, 0.0, 1e-8, 0.5, 1.0, 7.0, math.inf])
def test_compare_prints_a_row_for_every_optimism(eta):
    problem = oracles.random_problem(2, discount=0.9)
    found = inference.soft_values(problem.model(), eta)
    report = cai.compare(found.table, {"dial": found})
    row = report["dial"]
    assert row.imagined_bound == pytest.approx(found.bound)
    assert row.imagined_return == pytest.approx(found.imagined_return)
    gap = found.bound - row.elbo
    assert row.optimism_gap == (None if eta == 0 else pytest.approx(gap))
    assert gap * (1 if eta >= 0 else -1) >= -1e-12
    assert "nan" not in str(report) + report.to_markdown() + report.to_json()
    assert repr(found).startswith(f"Solution(optimism={eta:g}, ")


def test_compare_where_nothing_can_be_promised():
    """At η < 0 a risk of -inf makes the bound -inf, and the ELBO too: no gap, and no NaN."""
    P = [[[0.5, 0.5]], [[0.0, 1.0]]]
    model = models.tabular(P, [[0.0], [0.0]], horizon=1, final_reward=[0.0, -math.inf])
    for eta in (-math.inf, -1.0, 1.0):
        report = cai.compare(model, {"dial": inference.soft_values(model, eta)})
        assert "nan" not in str(report)
        assert report["dial"].elbo == -math.inf
        assert report["dial"].optimism_gap == (math.inf if eta > 0 else 0)


# The curve


def test_the_ledge_is_taken_from_half_the_logarithm_of_the_golden_ratio():
    """½ + ½ e^(-6η) = e^(-2η) where ledge and path are worth the same; α stretches η."""
    golden = (1 + math.sqrt(5)) / 2
    for alpha in (1.0, 0.3):
        curve = inference.optimism_curve(models.ledge(temperature=alpha))
        (change,) = curve.changes
        assert change.optimism == pytest.approx(alpha * math.log(golden) / 2, abs=1e-8)
        assert (change.t, change.s, change.before, change.after) == (0, 0, 1, 0)
        assert "step 0, start: path -> short cut" in str(curve)


@pytest.mark.parametrize(
    ("optimisms", "words"),
    [([-0.1, 0.1], "0 policy switches"), ([0.0, 1.0], "1 policy switch")],
)
def test_policy_switches_are_counted_in_words(optimisms, words):
    curve = inference.optimism_curve(models.ledge(), optimisms)
    assert repr(curve).endswith(f" nats, {words})")


def test_the_default_grid():
    curve = inference.optimism_curve(models.ledge())
    etas = curve.optimism.tolist()
    assert len(etas) == 41
    assert [-eta for eta in reversed(etas)] == etas
    assert {0.0, 1.0, -1.0, math.inf} <= set(etas)
    for column in (curve.tilt, curve.slope, curve.elbo, curve.expected_return):
        assert column.shape == (41,)
        assert column.isfinite().all()


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), discount=st.sampled_from([1.0, 0.8]))
def test_columns(seed, discount):
    """Bound, tilt and slope against mpmath; the worth of the policy by sums over all paths.

    The slope tilt/η² of tilts that are sums of outcomes tilted by η x each, x of the size of the
    values, errs by ε x/η; where η is too small for that it is the variance of luck, at which it
    arrives up to a third moment, η x³. Whichever is less is allowed, and rounding of a variance.
    """
    problem, rounding = oracles.random_problem(seed, S=2, T=2, discount=discount), 100 * 2.0**-52
    etas = [-math.inf, -2.0, -1e-8, 0.0, 1e-12, 1e-8, 1e-5, 0.5, 1.0, math.inf]
    curve = inference.optimism_curve(problem.model(), reversed(etas))
    assert curve.optimism.tolist() == etas
    rewards = (problem.reward, problem.arrival, problem.final)
    size = 1 + problem.T * sum(np.abs(x).max() for x in rewards) / problem.temperature
    for i, eta in enumerate(etas):
        exact = precise.Dial(problem, eta)
        assert curve.bound[i].item() == pytest.approx(float(exact.bound), abs=1e-12)
        assert curve.tilt[i].item() == pytest.approx(float(exact.tilt), abs=1e-12)
        near = precise.Dial(problem, eta or 1e-30)
        slope = 0.0 if math.isinf(eta) else float(near.tilt / near.eta**2)
        off = rounding * size**2 + min(rounding * size / abs(near.eta), abs(near.eta) * size**3)
        assert curve.slope[i].item() == pytest.approx(slope, abs=float(off))
        imagined = float(exact.imagined_return)
        assert curve.imagined_return[i].item() == pytest.approx(imagined, abs=1e-11)
        elbo, expected = oracles.elbo(problem, numbers(exact.policy))
        assert curve.elbo[i].item() == pytest.approx(elbo, abs=1e-11)
        assert curve.expected_return[i].item() == pytest.approx(expected, abs=1e-11)
    assert (curve.bound.diff() >= -1e-12).all()
    assert curve.elbo.argmax() == 3 or curve.elbo.max() - curve.elbo[3] < 1e-12


def favourites(table, eta):
    """(T, S) most probable actions, and where the policy is."""
    found = inference.soft_values(table, eta)
    return found.policy.log_probs.argmax(-1), cai.evaluate(table, found.policy).states[:-1]


GRID = [u / (1 - abs(u)) for u in np.linspace(-0.9, 0.9, 40)]
OFTEN = 0.35


def minded(seed):
    """A problem, the policy switches in all states, and in those where the policy often is."""
    problem = oracles.random_problem(seed, S=3, A=3, T=2, scale=3.0)
    table = cai.tabulate(problem.model())
    curves = [
        inference.optimism_curve(table, GRID, steps=[0, 1], least_visit=least)
        for least in (0.0, OFTEN)
    ]
    return problem, table, *(curve.changes for curve in curves)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_minds_change_where_a_fine_grid_says_so(seed):
    """Between two reported changes of a state it has one favourite.

    Where the policy is at step 0 is no matter of optimism, so that there the least visit decides
    alone whether a change is reported.
    """
    problem, table, everywhere, often = minded(seed)
    mind, counted = favourites(table, GRID[0])[0], 0
    for low, high in itertools.pairwise(GRID):
        after, _ = favourites(table, high)
        for t, s in (after != mind).nonzero().tolist():
            known = t == 0 and problem.initial[s] >= OFTEN
            for changes in (often, everywhere) if known else (everywhere,):
                between = [c for c in changes if (c.t, c.s) == (t, s) and low < c.optimism <= high]
                assert [between[0].before, between[-1].after] == [mind[t, s], after[t, s]]
            counted += len(between)
        mind = after
    assert counted <= len(everywhere)


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_a_reported_change_is_one_where_the_policy_is(seed):
    """Visits 1e-6 away are the same to 1e-3: their logarithm moves by some variances of rewards."""
    _, table, everywhere, often = minded(seed)
    for changes, least in ((everywhere, 0.0), (often, OFTEN)):
        for change in changes:
            for side, action in ((-1, change.before), (1, change.after)):
                actions, visits = favourites(table, change.optimism + side * 1e-6)
                assert actions[change.t, change.s] == action
                assert visits[change.t, change.s] >= least - 1e-3


def coin_or_nothing(**changes):
    """Action 0 pays nothing, action 1 a coin of ±1, action 2 the same coin; one step."""
    P = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]).expand(3, 3, 3)
    return models.tabular(P, torch.zeros(3, 3), horizon=1, final_reward=[0.0, 1.0, -1.0], **changes)


def test_ties_change_nothing():
    """Three actions tie at η = 0, two of them everywhere: one change, to the lowest of the two."""
    for etas in (None, [-1.0, 0.0, 1.0], [-1.0, -1e-6, 0.0, 1e-6, 2.0], [-0.5, 1.0]):
        (change,) = inference.optimism_curve(coin_or_nothing(), etas).changes
        assert change.optimism == pytest.approx(0, abs=1e-8)
        assert (change.before, change.after) == (0, 1)
    for etas in ([0.0, 1.0, math.inf], [-1.0, 0.0]):
        assert inference.optimism_curve(coin_or_nothing(), etas).changes == ()
    same = models.tabular(torch.full((2, 2, 2), 0.5), torch.zeros(2, 2), horizon=2)
    assert inference.optimism_curve(same, steps=(0, 1)).changes == ()


def one_decision(*outcomes):
    """One state; each action pays its mean plus what it draws: pairs (p, x) of mean zero."""
    values = sorted({x for pairs in outcomes for _, x in pairs})
    P = torch.zeros(len(values) + 1, len(outcomes), len(values) + 1, dtype=torch.float64)
    for a, pairs in enumerate(outcomes):
        for p, x in pairs:
            P[0, a, 1 + values.index(x)] += p
    P[1:] = torch.eye(len(values) + 1, dtype=torch.float64)[1:, None, :]
    final = torch.tensor([0.0, *values], dtype=torch.float64)
    return models.tabular(P, torch.zeros(P.shape[:2]), horizon=1, final_reward=final)


def coin(stake):
    return ((0.5, stake), (0.5, -stake))


def test_what_parts_from_a_tie_is_named_by_where_it_goes():
    """At η = 0 all three tie; the large stake leads from there, by less than can be told at first.

    What tied once and then fell behind is no favourite any more when it comes back: the long shot
    has little variance and pays most.
    """
    three = one_decision(((1.0, 0.0),), coin(1.0), coin(2.0))
    (change,) = inference.optimism_curve(three).changes
    assert change == inference.PolicySwitch(pytest.approx(0, abs=1e-8), 0, 0, 0, 2)
    long_shot = one_decision(((0.05, 3.0), (0.95, -3.0 / 19)), coin(1.0))
    for etas in ([0.0, 0.2, 5.0], [0.0, 0.1, 1.0, 9.0, math.inf]):
        (change,) = inference.optimism_curve(long_shot, etas).changes
        assert (change.before, change.after) == (1, 0)
        assert 0.2 < change.optimism < 5
    assert inference.optimism_curve(long_shot, [0.0, 0.2]).changes == ()


def test_a_change_too_far_out_to_place_is_at_infinity():
    """A coin beats what is sure by 1e-10 less than its best from η = 7e9 on."""
    for sign in (1, -1):
        nearly = one_decision(((1.0, sign * (1 - 1e-10)),), coin(1.0))
        (change,) = inference.optimism_curve(nearly).changes
        assert change.optimism == sign * math.inf


def test_rounding_is_a_tie():
    """The same draw with its outcomes in another order, where sums differ in the last digit."""
    rng = np.random.default_rng(0)
    p, x, order = rng.dirichlet(np.ones(20)), rng.normal(size=20), rng.permutation(20)
    P = np.zeros((41, 2, 41))
    P[0, 0, 1:21], P[0, 1, 21:] = p, p[order]
    P[1:] = np.eye(41)[1:, None]
    final = np.concatenate([[0.0], x, x[order]])
    model = models.tabular(P, np.zeros((41, 2)), horizon=1, final_reward=final)
    odds = [
        inference.soft_values(model, eta).policy.log_probs[0, 0].diff() for eta in (0.3, 1.0, 2)
    ]
    assert any(difference != 0 for difference in odds)  # rounding is there
    assert inference.optimism_curve(model).changes == ()


def test_only_where_the_policy_is_and_when_asked():
    """The coin is for a state that comes second, with a probability of one tenth."""
    P = torch.zeros(4, 2, 4)
    P[0, :, :] = torch.tensor([0.0, 0.1, 0.9, 0.0])
    P[1, 0, 0], P[1, 1, 2], P[1, 1, 3] = 1, 0.5, 0.5
    P[2, :, 2] = P[3, :, 3] = 1
    model = models.tabular(P, torch.zeros(4, 2), horizon=2, final_reward=[0.0, 0.0, 1.0, -1.0])
    curve = inference.optimism_curve
    assert curve(model).changes == ()
    assert [(c.t, c.s) for c in curve(model, steps=(0, 1)).changes] == [(1, 1)]
    assert curve(model, steps=(1,), least_visit=0.11).changes == ()
    # Every state has the coin; the policy starts in one of them.
    chosen = coin_or_nothing(initial=[0.0, 1.0, 0.0])
    assert [c.s for c in curve(chosen).changes] == [1]
    assert [c.s for c in curve(chosen, least_visit=0.0).changes] == [0, 1, 2]


def test_curve_through_minus_infinity():
    """Up to η = 0 the bound is -inf; from there it is finite, and nothing is NaN."""
    P = [[[0.5, 0.5]], [[0.0, 1.0]]]
    model = models.tabular(P, [[0.0], [0.0]], horizon=1, final_reward=[0.0, -math.inf])
    curve = inference.optimism_curve(model, [-math.inf, -1.0, 0.0, 1e-7, 1.0, math.inf])
    assert curve.bound.tolist()[:3] == [-math.inf] * 3
    assert curve.slope.tolist()[:3] == [0, 0, math.inf]
    assert curve.slope[4].item() == pytest.approx(math.log(2))
    for column in (curve.bound, curve.tilt, curve.slope, curve.elbo, curve.imagined_return):
        assert not column.isnan().any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimisms": []}, "optimisms: expected at least one"),
        ({"optimisms": [math.nan]}, "optimisms: expected a real number"),
        ({"steps": [4]}, r"steps: expected steps in 0 … 3, got 4"),
        ({"least_visit": 1.5}, "least_visit: expected a probability"),
        ({"tolerance": 0.0}, "tolerance: expected a finite number above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        inference.optimism_curve(models.ledge(), **arguments)

"""Rewards from demonstrations: every path by hand, second methods, theorems, and messages."""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch
from demonstrated import KINDS, every_path, features_of, objective, of_all_ends, random_case
from differences import numerically
from examples import endless

import cai
from cai import inference, models


@pytest.mark.parametrize(("likelihood", "eta"), KINDS)
@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("by_step", [False, True])
def test_scores_are_the_gradient_of_each_demonstration(likelihood, eta, discount, by_step):
    _, table, reward, weights = random_case(3, discount, by_step)
    seen = of_all_ends(table)
    score = objective(table, reward, seen, likelihood, eta)
    slopes, curvature = numerically(score, weights)
    found = score(weights)
    torch.testing.assert_close(found.scores, slopes, rtol=1e-6, atol=1e-7)
    if likelihood == "matching" or (likelihood == "paths" and eta == 1):
        torch.testing.assert_close(found.information, -curvature, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("likelihood", "eta"), KINDS)
@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("arrives", [False, True])
def test_scores_and_information_where_few_states_can_follow(likelihood, eta, discount, arrives):
    """As lists of successors; the Fisher information by all paths."""
    rng = np.random.default_rng(1)
    after = rng.integers(7, size=(7, 2, 2))
    P = 0.5 * (np.eye(7)[after[..., 0]] + np.eye(7)[after[..., 1]])
    model = models.tabular(
        P, np.zeros((7, 2)), horizon=3, discount=discount, initial=np.eye(7)[0], temperature=0.7
    )
    table = cai.tabulate(model)
    assert table.successors is not None
    reward = features_of(4, 7, 2)
    if not arrives:
        reward = cai.LinearReward({**reward.features, "g": reward.offset})
    weights = torch.tensor([0.4, -0.8, 0.6], dtype=torch.float64)
    kinds = ("horizon", "terminated") if discount < 1 else ("horizon",)
    seen = whole_runs(table, kinds)
    score = objective(table, reward, seen, likelihood, eta)
    found = score(weights)
    slopes, curvature = numerically(score, weights)
    torch.testing.assert_close(found.scores, slopes, rtol=1e-6, atol=1e-7)
    if likelihood == "matching" or (likelihood == "paths" and eta == 1):
        torch.testing.assert_close(found.information, -curvature, rtol=1e-5, atol=1e-6)
    if likelihood == "matching":
        return
    own = eta if likelihood == "paths" else 0.0
    p = objective(table, reward, seen, "paths", own)(weights).values.exp()
    if likelihood == "actions" and eta:
        return  # the chain of such an agent is not that of one likelihood of paths
    torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    total = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(len(seen)):
        total += p[i] * objective(table, reward, seen[i], likelihood, eta)(weights).information
    torch.testing.assert_close((found.scores.T * p) @ found.scores, total)


def whole_runs(table, kinds):
    """Every run from state 0 to its end: at the horizon, or terminated at any step before."""
    follows = [
        [(a, n) for a in range(table.num_actions) for n in set(table.successors[s, a].tolist())]
        for s in range(table.num_states)
    ]
    states, actions, ends = [], [], []

    def go(s, a):
        if a and "terminated" in kinds:
            states.append(s)
            actions.append(a)
            ends.append("terminated")
        if len(a) == table.horizon:
            states.append(s)
            actions.append(a)
            ends.append("horizon")
            return
        for action, after in follows[s[-1]]:
            go([*s, after], [*a, action])

    go([0], [])
    return cai.Demonstrations.from_paths(states, actions, ends=ends)


def test_matching_weighs_later_steps_of_those_who_were_not_terminated():
    """An agent that discounts and lives on: the mean score is zero only with γ^t and γ^L V."""
    _, table, reward, weights = random_case(6, discount=0.7)
    table = dataclasses.replace(table, horizon=6)
    own = reward.on(table).rewards(table, weights)
    policy = inference.soft_values(own).policy.log_probs
    seen = every_path(table, 3)
    s, a, after = seen.states[:, :-1], seen.actions, seen.states[:, 1:]
    dense = own.dense(own.log_dynamics).log()
    log_p = (policy[torch.arange(3), s, a] + dense[s, a, after]).sum(1)
    p = table.log_initial.exp()[s[:, 0]] * log_p.exp()
    torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    scores = objective(table, reward, seen.with_ends("cut"), "matching", 0.0)(weights).scores
    torch.testing.assert_close(p @ scores, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("likelihood", ["actions", "paths", "matching"])
@pytest.mark.parametrize("eta", [0.0, 1.0, 0.4])
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_scores_with_an_infinite_horizon(likelihood, eta, discount):
    if likelihood == "matching" and eta:
        return
    table = endless(5, discount=discount)
    S, A = table.num_states, table.num_actions
    reward = features_of(5, S, A)
    if discount == 1:  # nothing is paid in the goal
        lasting = torch.ones(S, A, dtype=torch.float64)
        lasting[-1] = 0
        given = {name: f * lasting for name, f in reward.features.items()}
        arrival = {"g": reward.arrival["g"] * lasting.unsqueeze(-1)}
        reward = cai.LinearReward(given, arrival=arrival, offset=-2 * lasting)
    weights = torch.tensor([0.2, -0.3, 0.1], dtype=torch.float64)
    seen = every_path(table, 3)[::7].with_ends("cut")
    score = objective(table, reward, seen, likelihood, eta)
    slopes, curvature = numerically(score, weights)
    found = score(weights)
    torch.testing.assert_close(found.scores, slopes, rtol=1e-6, atol=1e-7)
    if likelihood == "matching" or (likelihood == "paths" and eta == 1):
        torch.testing.assert_close(found.information, -curvature, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rule", ["soft", "boltzmann", "planned"])
def test_actions_agree_with_the_likelihood_that_torch_differentiates(eta, rule):
    _, table, reward, weights = random_case(7)
    seen = every_path(table, 3)
    found = objective(table, reward, seen, "actions", eta, rule)(weights)
    psi = weights.clone().requires_grad_()
    other = reward.on(table).rewards(table, psi)
    values = inference.log_likelihood(other, (seen.states, seen.actions), eta, rule)
    torch.testing.assert_close(found.values, values.detach())
    (slope,) = torch.autograd.grad(values.sum(), psi)
    torch.testing.assert_close(found.scores.sum(0), slope)


@pytest.mark.parametrize("seed", range(4))
def test_paths_at_optimism_one_are_the_posterior_over_all_paths(seed):
    problem, table, reward, weights = random_case(seed)
    seen = every_path(table, 3)
    paid = reward.weighted(weights)
    s, a, after = seen.states[:, :-1], seen.actions, seen.states[:, 1:]
    R = (paid(s, a) + paid.on_arrival(s, a, after)).sum(1) + torch.as_tensor(problem.final)[
        seen.states[:, -1]
    ]
    P, prior = (torch.as_tensor(x).log() for x in (problem.P, problem.prior))
    log_p = P[s, a, after].sum(1) + prior[s, a].sum(1) + R / problem.temperature
    first = seen.states[:, 0]
    total = torch.stack([log_p[first == x].logsumexp(0) for x in range(table.num_states)])
    expected = log_p - total[first]
    found = objective(table, reward, seen, "paths", 1.0)(weights)
    torch.testing.assert_close(found.values, expected)
    # What is cut off is the sum over all that may follow.
    short = dataclasses.replace(seen, lengths=torch.ones_like(seen.lengths)).with_ends("cut")[:]
    cut = objective(table, reward, short, "paths", 1.0)(weights).values
    alike = (seen.states[:, :2].unsqueeze(1) == seen.states[:, :2]).all(-1)
    alike &= seen.actions[:, :1] == seen.actions[:, 0]
    summed = torch.where(alike, expected, -torch.inf).logsumexp(1)
    torch.testing.assert_close(cut, summed)


@pytest.mark.parametrize(("likelihood", "eta"), [k for k in KINDS if k[0] != "matching"])
def test_information_is_the_mean_product_of_scores_where_the_demonstrator_is_right(likelihood, eta):
    _, table, reward, weights = random_case(11)
    seen = every_path(table, 3)
    own = reward.on(table).rewards(table, weights)
    # In the world of "paths" luck comes at optimism η; in that of "actions" as it really is.
    log_p = objective(table, reward, seen, "paths", eta)(weights).values
    if likelihood == "actions":
        s, a, after = seen.states[:, :-1], seen.actions, seen.states[:, 1:]
        log_pi = objective(table, reward, seen, "actions", eta)(weights).values
        log_p = log_pi + own.dense(own.log_dynamics).log()[s, a, after].sum(1)
    start = table.log_initial.exp()[seen.states[:, 0]]
    p = start * log_p.exp()
    torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    total = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(len(seen)):
        total += p[i] * objective(table, reward, seen[i], likelihood, eta)(weights).information
    scores = objective(table, reward, seen, likelihood, eta)(weights).scores
    torch.testing.assert_close((scores.T * p) @ scores, total)
    torch.testing.assert_close((p.unsqueeze(1) * scores).sum(0), torch.zeros(3).double())


def test_without_noise_and_discount_all_objectives_are_one():
    rng = np.random.default_rng(0)
    goes = torch.from_numpy(np.eye(4)[rng.integers(4, size=(4, 2))])
    model = models.tabular(goes, rng.normal(size=(4, 2)), horizon=4, temperature=0.7)
    table, reward = cai.tabulate(model), features_of(0, 4, 2)
    weights = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64)
    seen = every_path(table, 4)
    scores = [objective(table, reward, seen, *kind)(weights) for kind in KINDS]
    uniform = 4 * math.log(2)  # nats that the prior takes, which "matching" leaves out
    for (likelihood, _), found in zip(KINDS, scores, strict=True):
        torch.testing.assert_close(found.scores, scores[0].scores)
        left_out = uniform if likelihood == "matching" else 0.0
        torch.testing.assert_close(found.values - left_out, scores[0].values)


def test_maximum_entropy_takes_luck_for_choice():
    """Two tickets cost 1 and win 2 with chance .1 and .5; a third action does nothing."""
    win = torch.tensor([0.1, 0.5])
    P = torch.zeros(3, 3, 3, dtype=torch.float64)  # at the shop, nothing won, won
    P[0, :2, 2], P[0, :2, 1], P[0, 2, 1] = win.double(), 1 - win.double(), 1.0
    P[1:, :, 1] = 1.0
    model = models.tabular(P, torch.zeros(3, 3), horizon=1, initial=[1.0, 0.0, 0.0])
    reward = cai.LinearReward(
        {"ticket": lambda s, a: a < 2}, arrival={"win": lambda s, a, n: n == 2}
    )
    table = cai.tabulate(model)
    seen = every_path(table, 1)
    seen = seen[seen.states[:, 0] == 0]
    truth = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    own = objective(table, reward, seen, "actions", 0.0)(truth)
    p = own.values + table.dense(table.log_dynamics).log()[0, seen.actions[:, 0], seen.states[:, 1]]
    p = p.exp()
    torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))

    def slope(likelihood, eta, weights):
        score = objective(table, reward, seen, likelihood, eta)
        return (p @ score(torch.tensor(weights, dtype=torch.float64)).scores).abs().max()

    assert slope("actions", 0.0, [-1.0, 2.0]) < 1e-12
    assert slope("paths", 1.0, [-0.437, 0.341]) < 1e-3
    assert slope("actions", 1.0, [-1.166, 1.690]) < 1e-3
    assert slope("paths", 1.0, [-1.0, 2.0]) > 0.1


def test_the_search_ends_where_the_score_is_zero_from_anywhere():
    problem = oracles.random_problem(2, S=4, A=3, T=4, zeros=0.0, forbidden=0.0)
    model, weights = problem.model(), torch.tensor([0.5, -1.0, 0.7], dtype=torch.float64)
    table, reward = cai.tabulate(model), features_of(2, 4, 3)
    own = reward.on(table).rewards(table, weights)
    expert = inference.soft_values(own).policy
    seen = cai.Demonstrations.from_trajectories(model.simulate(expert, 400, seed=1))
    found = [
        inference.fit_reward(model, seen, reward, likelihood=likelihood, start=start)
        for likelihood in ("actions", "matching")
        for start in (None, [4.0, -4.0, 4.0])
    ]
    for a, b in (found[:2], found[2:]):
        assert a.converged
        assert b.converged
        for name in reward.names:
            assert a.weights[name] == pytest.approx(b.weights[name], abs=1e-4)
        assert float(a.scores.sum(0).abs().max()) < 1e-3
        assert a.log_likelihood >= a.log_likelihood_without
        again = reward.on(table).rewards(table, torch.tensor([*a.weights.values()]).double())
        torch.testing.assert_close(inference.soft_values(a.model).V, inference.soft_values(again).V)
    assert found[2].errors == "sandwich"
    assert found[2].aic is None
    # Features of a demonstration are matched by "matching", not by "actions".
    torch.testing.assert_close(found[2].observed, found[2].expected, rtol=1e-5, atol=1e-5)
    assert (found[0].observed - found[0].expected).abs().max() > 1e-3


def test_a_lower_maximum_is_not_the_answer():
    """From zeros the likelihood of actions climbs to a maximum that is 80 nats below the truth."""
    problem = oracles.random_problem(9, S=4, A=3, T=4, zeros=0.0, forbidden=0.0, temperature=0.3)
    model, reward = problem.model(), features_of(9, 4, 3)
    truth = torch.tensor([1.0, -1.0, 1.5], dtype=torch.float64)
    own = reward.on(cai.tabulate(model)).rewards(cai.tabulate(model), truth)
    expert = inference.soft_values(own, 1.0).policy
    seen = cai.Demonstrations.from_trajectories(model.simulate(expert, 3000, seed=3))
    lower = inference.fit_reward(model, seen, reward, optimism=1.0, start=[0.0, 0.0, 0.0])
    fitted = inference.fit_reward(model, seen, reward, optimism=1.0)
    assert lower.converged
    assert fitted.log_likelihood > lower.log_likelihood + 50
    for name, value in zip(reward.names, truth.tolist(), strict=True):
        assert abs(fitted.weights[name] - value) < 4 * fitted.std_errors[name]


def test_a_constant_is_not_identified_in_a_finite_horizon_and_has_no_error():
    _, table, reward, _ = random_case(2)
    more = cai.LinearReward(
        {**reward.features, "always": lambda s, a: torch.ones(s.shape)}, arrival=reward.arrival
    )
    seen = every_path(table, 3)
    fitted = inference.fit_reward(table, seen, more)
    plain = inference.fit_reward(table, seen, dataclasses.replace(reward, offset=0.0))
    assert fitted.unidentified == ({"always": 1.0},)
    assert math.isnan(fitted.std_errors["always"])
    assert fitted.weights["always"] == pytest.approx(0, abs=1e-9)  # as at the start
    for name in reward.names:
        assert fitted.weights[name] == pytest.approx(plain.weights[name], rel=1e-6)
        assert fitted.std_errors[name] == pytest.approx(plain.std_errors[name], rel=1e-6)
    assert "Not identified: 1 always" in str(fitted)
    assert "none" in fitted.to_markdown()
    assert '"std_error": null' in fitted.to_json()


def test_two_features_that_are_multiples_are_named_together():
    _, table, reward, _ = random_case(2)
    f = reward.features["f0"]
    more = cai.LinearReward({"f0": f, "minutes": f * 60, "f1": reward.features["f1"]})
    fitted = inference.fit_reward(table, every_path(table, 3), more)
    ((combination,),) = ([fitted.unidentified],)
    assert set(combination[0]) == {"f0", "minutes"}
    assert combination[0]["f0"] / combination[0]["minutes"] == pytest.approx(-60)
    assert math.isnan(fitted.std_errors["minutes"])
    assert math.isfinite(fitted.std_errors["f1"])


def test_what_never_occurs_has_no_finite_weight_unless_there_is_a_prior():
    stay_or_go = torch.eye(2, dtype=torch.float64).repeat(2, 1, 1)
    model = models.tabular(stay_or_go, torch.zeros(2, 2), horizon=4)
    reward = cai.LinearReward({"walks": lambda s, a: a == 1})
    stays = cai.Demonstrations.from_paths([[0] * 5] * 20, [[0] * 4] * 20)
    fitted = inference.fit_reward(model, stays, reward)
    assert fitted.separated == ({"walks": 1.0},)
    assert math.isnan(fitted.std_errors["walks"])
    assert "No finite maximum: 1 walks" in str(fitted)
    prior = torch.distributions.Normal(0.0, 1.0)
    likely = inference.fit_reward(model, stays, reward, prior=prior)
    assert not likely.separated
    assert likely.weights["walks"] < 0
    assert likely.std_errors["walks"] < 1


def test_the_table_of_estimates():
    _, table, reward, _ = random_case(2)
    seen = every_path(table, 3)
    fitted = inference.fit_reward(table, seen, reward)
    error = fitted.covariance.diagonal().sqrt().tolist()
    for i, name in enumerate(reward.names):
        weight = fitted.weights[name]
        assert fitted.std_errors[name] == error[i]
        assert fitted.z[name] == pytest.approx(weight / error[i])
        low, high = fitted.intervals(0.6826894921370859)[name]  # one standard error
        assert (low, high) == pytest.approx((weight - error[i], weight + error[i]))
        assert f"{fitted.z[name]:.1f}" in str(fitted)
        assert name in fitted.to_markdown()
        assert name in fitted._repr_html_()
    assert fitted.aic == pytest.approx(6 - 2 * fitted.log_likelihood)
    assert fitted.bic == pytest.approx(3 * math.log(len(seen)) - 2 * fitted.log_likelihood)
    assert set(fitted.to_dict()["weights"]) == set(reward.names)
    own = reward.on(table).rewards(table, torch.tensor([*fitted.weights.values()]).double())
    best = inference.soft_values(own).policy.log_probs
    torch.testing.assert_close(fitted.policy.log_probs, best)
    with pytest.raises(ValueError, match="level: expected between 0 and 1"):
        fitted.intervals(95)


class Flaky(torch.distributions.Normal):
    """A prior that is interrupted when it is asked for the n-th time."""

    left = 9

    def log_prob(self, value):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return super().log_prob(value)


def test_an_interrupt_leaves_the_best_so_far():
    _, table, reward, _ = random_case(2)
    seen = every_path(table, 3)
    whole = inference.fit_reward(table, seen, reward, prior=torch.distributions.Normal(0.0, 9.0))
    cut = inference.fit_reward(table, seen, reward, prior=Flaky(0.0, 9.0))
    assert not cut.converged
    assert "interrupted" in str(cut)
    assert 0 < cut.steps < whole.steps
    assert cut.log_likelihood_without < cut.log_likelihood < whole.log_likelihood + 1e-9


def test_errors_by_groups_are_those_of_the_sums_of_their_scores():
    _, table, reward, _ = random_case(2)
    seen = every_path(table, 3)
    seen = dataclasses.replace(seen, groups=tuple(f"g{i % 5}" for i in range(len(seen))))
    plain = inference.fit_reward(table, seen, reward)
    fitted = inference.fit_reward(table, seen, reward, cluster="group")
    assert fitted.weights == plain.weights
    sums = torch.stack([plain.scores[i::5].sum(0) for i in range(5)])
    inverse = torch.linalg.inv(plain.information)
    torch.testing.assert_close(fitted.covariance, inverse @ sums.T @ sums @ inverse)
    torch.testing.assert_close(plain.covariance, inverse)


def test_impossible_demonstrations_are_named_or_dropped():
    model = models.ledge(horizon=2)
    reward = cai.LinearReward({"state": lambda s, a: s})
    P = cai.tabulate(model)
    dense = P.dense(P.log_dynamics)
    never = int((dense[0, 0] == 0).nonzero()[0])
    after = int((dense[0, 0] > 0).nonzero()[0])
    then = int((dense[after, 0] > 0).nonzero()[0])
    seen = cai.Demonstrations.from_paths([[0, after, then], [0, never, never]], [[0, 0], [0, 0]])
    words = f"demonstration 1, step 0: .* got state {never} after action 0 in state 0"
    with pytest.raises(ValueError, match=words):
        inference.fit_reward(model, seen, reward)
    fitted = inference.fit_reward(model, seen, reward, on_impossible="drop")
    assert (fitted.demonstrations, fitted.dropped) == (1, 1)
    with pytest.raises(ValueError, match="expected some that are possible, got none"):
        inference.fit_reward(model, seen[1], reward, on_impossible="drop")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimism": math.inf}, "optimism: expected a finite number"),
        ({"optimism": 1.0, "likelihood": "matching"}, "optimism: expected 0 for likelihood="),
        ({"likelihood": "states"}, "likelihood: expected"),
        ({"rule": "hard"}, "rule: expected"),
        ({"rule": "boltzmann", "likelihood": "paths"}, 'rule: expected "soft" for likelihood='),
        ({"cluster": "group"}, "cluster: expected demonstrations with groups"),
        ({"cluster": "driver"}, 'cluster: expected "group", got'),
        ({"prior": 3.0}, "prior: expected a distribution of weights, got 3.0"),
        ({"start": [1.0, 2.0]}, "start: expected 1 finite weights"),
        ({"steps": 0}, "steps: expected"),
        ({"prior": torch.distributions.LogNormal(0.0, 1.0)}, "start: expected weights whose"),
        ({"on_impossible": "ignore"}, "on_impossible: expected"),
    ],
)
def test_wrong_arguments(changes, words):
    model = models.ledge(horizon=1)
    seen = cai.Demonstrations.from_trajectories(model.simulate(model.prior, 5, seed=0))
    with pytest.raises(ValueError, match=words):
        inference.fit_reward(model, seen, cai.LinearReward({"s": lambda s, a: s}), **changes)


def test_lengths_must_fit_the_horizon():
    model = models.ledge(horizon=3)
    reward = cai.LinearReward({"s": lambda s, a: s})
    simulated = models.ledge(horizon=2).simulate(model.prior, 5, seed=0)
    seen = cai.Demonstrations.from_trajectories(simulated)
    with pytest.raises(ValueError, match=r"expected 3 actions, the horizon, got 2 in demonst"):
        inference.fit_reward(model, seen, reward)
    assert inference.fit_reward(model, seen.with_ends("own"), reward).converged
    endless_model = models.ledge(horizon=None, discount=0.9)
    with pytest.raises(ValueError, match='ends: expected no "horizon" or "own"'):
        inference.fit_reward(endless_model, seen, reward)
    assert inference.fit_reward(endless_model, seen.with_ends("cut"), reward).converged


def test_a_horizon_of_its_own_needs_no_model_of_its_own():
    model = models.ledge(horizon=3)
    reward = cai.LinearReward({"s": lambda s, a: s, "a": lambda s, a: a})
    shorter = models.ledge(horizon=2)
    seen = cai.Demonstrations.from_trajectories(shorter.simulate(model.prior, 50, seed=0))
    a = inference.fit_reward(model, seen.with_ends("own"), reward)
    b = inference.fit_reward(shorter, seen, reward)
    assert a.weights == pytest.approx(b.weights, rel=1e-6)
    assert a.std_errors == pytest.approx(b.std_errors, rel=1e-6)


@pytest.mark.parametrize(("likelihood", "eta"), [("actions", 0.0), ("paths", 1.0)])
def test_the_search_leaves_zero_where_nothing_is_paid_yet(likelihood, eta):
    """No state is ever paid at zero; values must answer to the weights all the same."""
    model = models.gridworld(["S...", ".P..", "...G"], horizon=None, slip=0.2, pit_reward=-3.0)
    cells = "".join(model.layout.map)
    pit, goal = (torch.tensor([c == x for c in cells]) for x in "PG")
    long = dataclasses.replace(model, horizon=200)
    drawn = long.simulate(inference.soft_values(model, eta).policy, 300, seed=1)
    ends = (pit | goal)[drawn.states].int().argmax(1).tolist()
    assert min(ends) > 0  # all arrived
    paths = [row[: end + 1] for row, end in zip(drawn.states.tolist(), ends, strict=True)]
    turns = [row[:end] for row, end in zip(drawn.actions.tolist(), ends, strict=True)]
    seen = cai.Demonstrations.from_paths(paths, turns, ends="absorbed")
    reward = cai.LinearReward(
        {"step": lambda s, a: ~(pit | goal)[s]},
        arrival={"pit": lambda s, a, n: pit[n] & ~pit[s]},
        offset=0.0,
    )
    fitted = inference.fit_reward(model, seen, reward, likelihood=likelihood, optimism=eta)
    assert fitted.converged
    assert not fitted.unidentified
    assert fitted.weights["step"] < 0
    nearby = inference.fit_reward(
        model, seen, reward, likelihood=likelihood, optimism=eta, start=[-0.5, -0.5]
    )
    assert fitted.log_likelihood == pytest.approx(nearby.log_likelihood, abs=1e-6)

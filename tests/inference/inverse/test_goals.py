"""Demonstrations with goals of their own: each problem by itself, all paths, and messages."""

import dataclasses

import pytest
import torch
from examples import endless
from test_fit_reward import features_of, objective

import cai
from cai import inference

KINDS = [("actions", 0.0), ("actions", 0.6), ("paths", 1.0), ("matching", 0.0)]


def unpaid(reward, state):
    """The same reward with nothing for a state, in which trajectories end."""

    def without(x):
        x = x.clone()
        x[state] = 0.0
        return x

    features = {name: without(f) for name, f in reward.features.items()}
    arrival = {name: without(f) for name, f in reward.arrival.items()}
    return cai.LinearReward(features, arrival=arrival, offset=without(reward.offset))


def case(seed=0, n=60, discount=1.0):
    """Walks of a costly chain to goals that differ, and their reward."""
    table = endless(seed, S=5, A=3, discount=discount, zeros=0.0)
    costs = torch.full((5, 3), -1.0, dtype=torch.float64)
    reward = unpaid(dataclasses.replace(features_of(seed, 5, 3), offset=costs), 4)
    rng = torch.Generator().manual_seed(seed)
    P = table.dense(table.log_dynamics)
    paths, turns, goals = [], [], []
    for i in range(n):
        goal = 1 + i % 3
        s, path, taken = 0, [0], []
        while s != goal:
            taken.append(int(torch.randint(3, (), generator=rng)))
            s = int(torch.multinomial(P[s, taken[-1]], 1, generator=rng))
            if s == 4:  # it is lost
                break
            path.append(s)
        if s == goal:
            paths.append(path)
            turns.append(taken)
            goals.append(goal)
    return table, reward, cai.Demonstrations.from_paths(paths, turns, ends="absorbed", goals=goals)


def test_a_table_that_ends_at_a_goal_is_the_sum_over_all_ways_there():
    """E exp Σ r over all ways that end in the goal, or in the last state, by dense algebra."""
    table, reward, _ = case()
    paid = reward.on(table).rewards(table, torch.tensor([0.1, -0.2, 0.1]).double())
    found = inference.soft_values(cai.with_goal(paid, 2), 1.0).log_values.exp()
    weight = (paid.log_prior + paid.reward / paid.temperature).exp()
    moves = weight.unsqueeze(-1) * (paid.log_dynamics + paid.arrival_reward / 0.7).exp()
    M = table.dense(moves.log()).sum(1) if table.successors is not None else moves.sum(1)
    on = torch.tensor([0, 1, 3])
    z = torch.linalg.solve(torch.eye(3).double() - M[on][:, on], M[on][:, [2, 4]].sum(1))
    torch.testing.assert_close(found[on], z)
    torch.testing.assert_close(found[[2, 4]], torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(("likelihood", "eta"), KINDS)
def test_the_likelihood_is_the_sum_of_those_to_each_goal(likelihood, eta):
    table, reward, seen = case()
    start = [0.1, -0.1, 0.2]
    options = {"likelihood": likelihood, "optimism": eta, "start": start, "steps": 1}
    together = inference.fit_reward(table, seen, reward, goals="own", **options)
    weights = torch.tensor([*together.weights.values()], dtype=torch.float64)
    total, scores = 0.0, torch.zeros(len(seen), 3, dtype=torch.float64)
    for goal in (1, 2, 3):
        who = (seen.goals == goal).nonzero().squeeze(1)
        ending, own = cai.with_goal(table, goal), unpaid(reward, goal)
        scores[who] = objective(ending, own, seen[who], likelihood, eta)(weights).scores
        kind = "actions" if likelihood == "matching" else likelihood
        total += float(objective(ending, own, seen[who], kind, eta)(weights).values.sum())
    assert together.log_likelihood == pytest.approx(total, abs=1e-9)
    torch.testing.assert_close(together.scores, scores)


def test_weights_are_found_again_and_luck_beyond_the_goal_does_not_matter():
    table, reward, seen = case(n=20)
    truth = torch.tensor([0.8, -0.5, 0.6], dtype=torch.float64)
    paid = reward.on(table).rewards(table, truth)
    paths, turns, goals = [], [], []
    rng = torch.Generator().manual_seed(3)
    P = table.dense(table.log_dynamics)
    for goal in (1, 2, 3):
        policy = inference.soft_values(cai.with_goal(paid, goal)).policy.log_probs.exp()
        for _ in range(400):
            s, path, taken = 0, [0], []
            while s not in (goal, 4):
                taken.append(int(torch.multinomial(policy[s], 1, generator=rng)))
                s = int(torch.multinomial(P[s, taken[-1]], 1, generator=rng))
                path.append(s)
            paths.append(path)
            turns.append(taken)
            goals.append(goal)
    ends = ["absorbed" if path[-1] != 4 else "cut" for path in paths]
    seen = cai.Demonstrations.from_paths(paths, turns, ends=ends, goals=goals)
    fitted = inference.fit_reward(table, seen, reward, goals="own")
    assert fitted.converged
    for name, value in zip(reward.names, truth.tolist(), strict=True):
        assert abs(fitted.weights[name] - value) < 4 * fitted.std_errors[name]
    assert torch.equal(fitted.goals, seen.goals)
    assert "each to its goal" in str(fitted)
    with pytest.raises(ValueError, match="goals: expected one problem for all demonstrations"):
        _ = fitted.policy
    assert inference.soft_values(cai.with_goal(fitted.model, 2)).V[2] == 0
    without = inference.fit_reward(table, seen.with_ends("cut"), reward)
    assert without.log_likelihood < fitted.log_likelihood - 10


def test_what_does_not_fit_a_goal_is_said():
    table, reward, seen = case(n=20)
    passing = cai.Demonstrations.from_paths([[0, 1, 2, 1]], [[0, 0, 0]], ends="absorbed")
    with pytest.raises(ValueError, match=r"demonstration 0: expected a goal .* state 1 at step 1"):
        inference.fit_reward(table, passing, reward, goals="own")
    astray = cai.Demonstrations.from_paths([[0, 1]], [[0]], ends="absorbed", goals=[2])
    with pytest.raises(ValueError, match="demonstration 0: expected state 2, its goal"):
        inference.fit_reward(table, astray, reward, goals="own")
    with pytest.raises(ValueError, match='goals: expected "own"'):
        inference.fit_reward(table, seen, reward, goals="all")
    with pytest.raises(ValueError, match="goals: expected a linear reward"):
        inference.fit_reward(table, seen, cai.TabularReward(), goals="own")
    for goal in (5, -1, True, 0.5):
        with pytest.raises(ValueError, match="goal: expected a state 0 … 4"):
            cai.with_goal(table, goal)

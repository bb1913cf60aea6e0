"""Maximum margins: against the whole program with planning inside, and against every policy."""

import dataclasses
import itertools
import json
import math
import sys

import networkx as nx
import numpy as np
import oracles
import pytest
import torch
from demonstrated import features_of
from scipy.optimize import minimize
from scipy.sparse import csc_array, diags_array
from towns import NAMES, town, trips_of, walks

import cai
from cai import inference, models
from cai.inference.apprenticeship.hard_planning import Planner

clarabel = pytest.importorskip("clarabel")


def whole_program(k, m, constraints, scale, prices, more):
    """min ½ |scale ψ|² + prices·ξ over (ψ, ξ ≥ 0, other variables), rows·x ≤ b, by clarabel."""
    rows, b = map(np.array, zip(*constraints, strict=True))
    n = k + m + more
    rows = np.vstack([rows, -np.eye(n)[k : k + m]])
    b = np.r_[b, np.zeros(m)]
    P = diags_array(np.r_[scale**2, np.zeros(m + more)]).tocsc()
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    q = np.r_[np.zeros(k), prices, np.zeros(more)]
    cones = [clarabel.NonnegativeConeT(len(b))]
    found = clarabel.DefaultSolver(P, q, csc_array(rows), b, cones, settings).solve()
    return np.array(found.x)[:k], float(found.obj_val)


def with_planning_inside(table, reward, seen, slack, loss=1.0, groups=None):
    """The weights by one program, in which values bound those of all policies.

    Finite horizons: V_t(s) ≥ r - loss + γ E V_{t+1}, for each example; else V ≥ r + γ E V. An
    example is a demonstration, or the average of a group of them.
    """
    arrays, S, A = reward.on(table), table.num_states, table.num_actions
    p, prior = table.dense(table.log_dynamics).numpy(), table.log_prior.numpy()
    f = arrays.reward.numpy().copy()
    if arrays.arrival is not None:
        f += (table.log_dynamics.exp() * arrays.arrival).sum(-1).numpy()
    offset, final, gamma = arrays.offset.numpy(), table.final_reward.numpy(), table.discount
    groups = groups or [[i] for i in range(len(seen))]
    k, m, T = len(f), len(groups), table.horizon
    steps = 1 if T is None else T
    each, whole = S * steps, table.horizon is None and gamma == 1
    last = [any(p[s, a, s] < 1 for a in range(A)) or not whole for s in range(S)]
    more = m * each + (S if whole else 0)
    n, constraints = k + m + more, []

    def bounded(base, t, s, a, lowered):
        """r - V(s) + γ E V ≤ lowered - offset, V of t + 1 being known at the end."""
        row, b = np.zeros(n), lowered - offset[s, a]
        row[:k] = f[:, s, a]
        row[base + t * S + s] -= 1
        if T is not None and t + 1 == T:
            b -= gamma * p[s, a] @ final
        else:
            after = base + (t + 1 if T else 0) * S
            row[after : after + S] += gamma * p[s, a] * last
        constraints.append((row, b))

    drawn = "terminated" in seen.ends
    for j, group in enumerate(groups):
        base, share, n_j = k + m + j * each, np.zeros((S, A)), len(group)
        row, right = np.zeros(n), 0.0
        for i in group:
            L = int(seen.lengths[i])
            s, a = seen.states[i, :L].numpy(), seen.actions[i, :L].numpy()
            after, fade = (
                seen.states[i, 1 : L + 1].numpy(),
                (1.0 if drawn else gamma) ** np.arange(L),
            )
            for pair in set(zip(s, a, strict=True)):
                share[pair] += 1 / n_j
            own = arrays.reward[:, s, a].numpy()
            own = own if arrays.arrival is None else own + arrays.arrival[:, s, a, after].numpy()
            row[:k] -= own @ fade / n_j
            right += (offset[s, a] @ fade - loss * fade.sum()) / n_j
            if T is not None and seen.ends[i] != "terminated":
                right += (1.0 if drawn else gamma**L) * final[after[-1]] / n_j
        for t, s, a in itertools.product(range(steps), range(S), range(A)):
            if prior[s, a] > -np.inf and last[s]:
                bounded(base, t, s, a, loss * share[s, a])
        row[k + j], begins = -1.0, T - L if seen.ends[group[0]] == "own" else 0
        row[base + begins * S + int(seen.states[group[0], 0])] += 1
        constraints.append((row, right))
    if whole:
        for s, a in itertools.product(range(S), range(A)):
            if prior[s, a] > -np.inf and last[s]:
                bounded(n - S, 0, s, a, 0.0)
    scale = arrays.spread(table).numpy()
    prices = slack * np.array([len(group) for group in groups])
    return whole_program(k, m, constraints, scale, prices, more)


def drawn(table_model, reward, weights, n, seed, horizon_ends="horizon"):
    expert = reward.weighted(weights).given_to(table_model)
    paths = expert.simulate(inference.soft_values(expert).policy, n, seed=seed)
    return cai.Demonstrations.from_trajectories(paths)


def psi(found):
    return np.array([*found.weights.values()])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_cutting_planes_are_the_program_with_planning_inside(seed, discount):
    problem = oracles.random_problem(seed, T=3, discount=discount)
    model, reward = problem.model(), features_of(seed, 3, 2)
    seen = drawn(model, reward, torch.tensor([2.0, -1.0, 1.0]), 6, seed)
    found = inference.max_margin(model, seen, reward, slack=0.7, examples="each", progress=False)
    assert found.converged, found.reason
    weights, least = with_planning_inside(cai.tabulate(model), reward, seen, 0.7)
    np.testing.assert_allclose(psi(found), weights, atol=1e-6)
    assert found.objective == pytest.approx(least, abs=1e-7)
    assert found.bound == pytest.approx(found.objective, abs=1e-7)


def test_lengths_of_their_own_a_loss_of_its_own_and_a_table():
    problem = oracles.random_problem(7, T=4)
    table, reward = cai.tabulate(problem.model()), features_of(7, 3, 2)
    seen = drawn(problem.model(), reward, torch.tensor([2.0, -1.0, 1.0]), 8, 0)
    lengths = 1 + torch.arange(8) % 4
    short = dataclasses.replace(seen, lengths=lengths).with_ends("own")[:]
    found = inference.max_margin(
        table, short, reward, slack=2.0, loss=0.5, examples="each", progress=False
    )
    weights, _ = with_planning_inside(table, reward, short, 2.0, 0.5)
    np.testing.assert_allclose(psi(found), weights, atol=1e-6)
    same = torch.full((3, 2), 0.5).double()
    again = inference.max_margin(
        table, short, reward, slack=2.0, loss=same, examples="each", progress=False
    )
    np.testing.assert_allclose(psi(again), psi(found), atol=1e-7)
    assert isinstance(found.model, cai.Table)


@pytest.mark.parametrize("seed", range(3))
def test_an_infinite_horizon_with_a_discount(seed):
    problem = oracles.random_problem(seed, discount=0.7)
    table = cai.tabulate(problem.model(horizon=None, final_reward=None))
    reward = features_of(seed, 3, 2)
    model = problem.model(horizon=8, final_reward=None)
    paths = model.simulate(lambda t, s: model.prior(s), 12, seed=seed)
    seen = cai.Demonstrations.from_trajectories(paths)
    seen = seen[[i for i, end in enumerate(seen.ends) if end == "terminated"]]
    found = inference.max_margin(table, seen, reward, examples="each", progress=False)
    weights, _ = with_planning_inside(table, reward, seen, 1.0)
    np.testing.assert_allclose(psi(found), weights, atol=1e-6)
    cut = inference.max_margin(
        table, seen.with_ends("cut"), reward, examples="each", progress=False
    )
    assert "cut off" in cut.remarks[0]
    weights, _ = with_planning_inside(table, reward, seen.with_ends("cut"), 1.0)
    np.testing.assert_allclose(psi(cut), weights, atol=1e-6)


def maze(seed=0, S=6):
    """An infinite horizon without a discount: action 0 may lead to the end, action 1 never does."""
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.full(S, 0.3), (S, 2))
    P[:, 1, -1] = 0.0
    P[:, 1] /= P[:, 1].sum(-1, keepdims=True)
    P[:-1, 0] = 0.7 * P[:-1, 0] + 0.3 * np.eye(S)[-1]
    P[-1] = np.eye(S)[-1]
    model = models.tabular(P, np.zeros((S, 2)), horizon=None)
    f = torch.from_numpy(rng.normal(size=(3, S, 2)))
    f[:, -1] = 0.0
    f[0, :-1] = 1.0  # the length
    reward = cai.LinearReward(dict(zip("lab", f, strict=True)))
    return model, reward


def wandering(model, share, seed):
    """Six paths to the end, on which action 1 is taken with some probability."""
    rng, table = np.random.default_rng(seed), cai.tabulate(model)
    p, states, actions = table.dense(table.log_dynamics).numpy(), [], []
    for _ in range(6):
        path, turns = [int(rng.integers(5))], []
        while path[-1] != 5:
            turns.append(int(rng.random() < share))
            path.append(int(rng.choice(6, p=p[path[-1], turns[-1]])))
        states.append(path)
        actions.append(turns)
    return cai.Demonstrations.from_paths(states, actions, ends="absorbed")


@pytest.mark.parametrize("seed", range(3))
def test_without_a_discount_nothing_may_go_on_for_ever(seed):
    """Who wanders seems to be paid for it, but then would never stop."""
    model, reward = maze(seed)
    seen = wandering(model, 0.9, seed)
    found = inference.max_margin(model, seen, reward, slack=0.5, examples="each", progress=False)
    assert found.converged
    assert math.inf in found.history.tolist()  # such weights were met
    table = cai.tabulate(model)
    weights, least = with_planning_inside(table, reward, seen, 0.5)
    np.testing.assert_allclose(psi(found), weights, atol=1e-6)
    assert found.objective == pytest.approx(least, abs=1e-6)
    worth = sum(w * reward.features[name] for name, w in found.weights.items())
    assert Planner(table).gaining(worth) is None


def test_planning_by_a_linear_program_has_the_hard_values():
    model, reward = maze(3)
    paid = reward.weighted([-3.0, 0.3, 0.2]).given_to(model)
    begin = torch.tensor([[1.0, 2.0, 0.0, 0.5, 0.0, 0.0]], dtype=torch.float64)
    table = cai.tabulate(paid)
    value, visits = Planner(table).best(table.reward, begin)
    expected = inference.soft_values(paid, rule="hard").V
    assert value == pytest.approx(float(begin[0] @ expected), abs=1e-9)
    assert value == pytest.approx(float((visits[0] * table.reward).sum()), abs=1e-9)
    assert Planner(table).gaining(table.reward) is None
    around = Planner(table).gaining(-table.reward)
    inflow = (around[0].unsqueeze(-1) * table.dense(table.log_dynamics)).sum((0, 1))
    torch.testing.assert_close(inflow[:-1], around[0].sum(1)[:-1])


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("make", oracles.KINDS)
def test_plans_are_worth_what_they_visit_and_copies_plan_alike(make, discount):
    """Dynamics and priors that depend on the step, too; several rewards at once, or one by one."""
    table = cai.tabulate(make(5, T=4, discount=discount).model())
    rng = np.random.default_rng(0)
    rewards = [torch.from_numpy(rng.normal(size=(3, 2))) for _ in range(5)]
    begin = torch.from_numpy(rng.random((5, 4, 3)).round())
    planner = Planner(table)
    for r, b, (value, visits) in zip(
        rewards, begin, planner.best_of_each(rewards, begin), strict=True
    ):
        alone = planner.best(r, b)
        assert value == pytest.approx(alone.value, abs=1e-12)
        torch.testing.assert_close(visits, alone.visits)
        solution = inference.soft_values(
            table.holding(reward=r, arrival_reward=None, program=None), rule="hard"
        )
        assert value == pytest.approx(float((b * solution.V[:-1]).sum()), abs=1e-12)
        p = table.dense(table.log_dynamics)
        last = discount * torch.einsum("sa,sax->x", visits[3], p[3] if p.dim() == 4 else p)
        earned = (visits * r).sum() + last @ table.final_reward
        assert value == pytest.approx(float(earned), abs=1e-10)
        counted = visits.sum(-1)
        for t in range(3):
            moves = torch.einsum("sa,sax->x", visits[t], p[t] if p.dim() == 4 else p)
            torch.testing.assert_close(counted[t + 1], b[t + 1] + discount * moves)


@pytest.mark.parametrize("seed", range(3))
def test_no_policy_at_all_comes_nearer(seed):
    """All deterministic policies of three steps, and the minimum over weights by SLSQP."""
    problem = oracles.random_problem(seed, T=2, forbidden=0.0)
    model, reward = problem.model(), features_of(seed, 3, 2)
    seen = drawn(model, reward, torch.tensor([1.0, 1.0, -1.0]), 3, seed)
    found = inference.max_margin(model, seen, reward, examples="each", progress=False)
    table, arrays = cai.tabulate(model), reward.on(cai.tabulate(model))
    p, scale = table.dense(table.log_dynamics), arrays.spread(table).numpy()
    f = arrays.reward + (p * arrays.arrival).sum(-1)
    of = [(seen.states[i].tolist(), seen.actions[i].tolist()) for i in range(3)]
    rows = []
    for i, (s, a) in enumerate(of):
        own = sum(
            arrays.reward[:, s[t], a[t]] + arrays.arrival[:, s[t], a[t], s[t + 1]] for t in (0, 1)
        )
        known = sum(arrays.offset[s[t], a[t]] for t in (0, 1)) + table.final_reward[s[2]]
        for first, *second in itertools.product(range(2), repeat=4):
            here = p[s[0], first]
            mean = f[:, s[0], first] + sum(here[x] * f[:, x, second[x]] for x in range(3))
            paid = arrays.offset[s[0], first] - float((s[0], first) in zip(s, a, strict=False))
            for x in range(3):
                shared = float((x, second[x]) in zip(s, a, strict=False))
                rest = arrays.offset[x, second[x]] - shared
                paid = paid + here[x] * (rest + p[x, second[x]] @ table.final_reward)
            rows.append((i, (mean - own).numpy(), float(paid - known) + 2.0))
    shorts = np.eye(3)[[i for i, *_ in rows]]
    R, c = np.array([r for _, r, _ in rows]), np.array([x for *_, x in rows])
    constraint = {"type": "ineq", "fun": lambda x: shorts @ x[3:] - R @ x[:3] - c}
    positive = {"type": "ineq", "fun": lambda x: x[3:]}
    best = minimize(
        lambda x: 0.5 * ((scale * x[:3]) ** 2).sum() + x[3:].sum(),
        np.r_[np.zeros(3), np.full(3, 9.0)],
        constraints=[constraint, positive],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(psi(found), best.x[:3], atol=1e-5)
    np.testing.assert_allclose(found.slacks.numpy(), best.x[3:], atol=1e-5)


def grid(size=4, seed=0):
    """Crossings in a square, driven to the east and to the north, so that routes are few."""
    rng = np.random.default_rng(seed)
    ends = [((i, j), (i + 1, j)) for i in range(size - 1) for j in range(size)]
    ends += [((i, j), (i, j + 1)) for i in range(size) for j in range(size - 1)]
    tail, head = ([f"{i}-{j}" for i, j in column] for column in zip(*ends, strict=True))
    columns = {"tail": ["in", *tail], "head": ["0-0", *head]}
    numbers = {name: rng.uniform(0.5, 2.0, len(tail) + 1) for name in ("minutes", "scenic")}
    return models.streets_from_columns(columns | numbers)


def test_no_route_at_all_comes_nearer():
    streets, names = grid(), ["minutes", "scenic"]
    trips = walks(streets, 25, seed=3)
    found = inference.max_margin(streets, trips, names, slack=0.5, progress=False)
    graph = nx.DiGraph(streets.turns.tolist())
    f, scale = streets.features(names).numpy(), streets.features(names).std(0, correction=0).numpy()
    index = {tuple(pair): n for n, pair in enumerate(streets.turns.tolist())}
    constraints = []
    for i in range(len(trips)):
        path = trips.states[i, : trips.lengths[i] + 1].tolist()
        own = [index[pair] for pair in itertools.pairwise(path)]
        for other in nx.all_simple_paths(graph, path[0], path[-1]):
            turns = [index[pair] for pair in itertools.pairwise(other)]
            row = np.zeros(2 + len(trips))
            row[:2], row[2 + i] = f[turns].sum(0) - f[own].sum(0), -1.0
            constraints.append((row, float(len(set(own) & set(turns)) - len(own))))
    prices = np.full(len(trips), 0.5)
    weights, least = whole_program(2, len(trips), constraints, scale, prices, 0)
    np.testing.assert_allclose(psi(found), weights, atol=1e-6)
    assert found.objective == pytest.approx(least, abs=1e-7)


def test_trips_in_a_town_with_cycles_and_planning_inside_the_program():
    """Values of all segments for each trip, and gains h(s) ≥ u + h(s') so that no cycle gains."""
    streets = town(1)
    trips = walks(streets, 15, seed=2)
    found = inference.max_margin(streets, trips, NAMES, slack=0.3, progress=False)
    assert found.converged
    f = streets.features(NAMES).numpy()
    n, E, k = len(trips), len(streets.segments), len(NAMES)
    more, constraints = (n + 1) * E, []
    for i in range(n + 1):
        own = trips.actions[i, : trips.lengths[i]].tolist() if i < n else []
        goal, base = int(trips.goals[i]) if i < n else -1, k + n + i * E
        for turn, (s, after) in enumerate(streets.turns.tolist()):
            if s != goal:
                row = np.zeros(k + n + more)
                row[:k], row[base + s] = f[turn], -1.0
                row[base + after] += 1.0 * (after != goal)
                constraints.append((row, float(turn in own)))
        if own:
            row = np.zeros(k + n + more)
            row[:k], row[k + i] = -f[own].sum(0), -1.0
            row[base + int(trips.states[i, 0])] += 1.0
            constraints.append((row, -float(len(own))))
    scale = streets.features(NAMES).std(0, correction=0).numpy()
    weights, least = whole_program(k, n, constraints, scale, np.full(n, 0.3), more)
    np.testing.assert_allclose(psi(found), weights, atol=1e-6)
    assert found.objective == pytest.approx(least, abs=1e-6)


def test_somebody_who_plans_is_the_best_by_a_margin():
    """Shortest ways by hidden costs: no slack is needed, and planning finds the same ways."""
    streets, names, truth = town(4), ["minutes", "left"], torch.tensor([-3.0, -1.0]).double()
    graph = nx.DiGraph()
    costs = (-streets.features(names) @ truth).tolist()
    for (s, after), cost in zip(streets.turns.tolist(), costs, strict=True):
        graph.add_edge(s, after, cost=cost)
    rng = np.random.default_rng(0)
    paths = []
    for _ in range(60):
        o, d = rng.choice(len(streets.segments), 2, replace=False).tolist()
        paths.append(nx.shortest_path(graph, o, d, weight="cost"))
    trips = trips_of(streets, paths)
    found = inference.max_margin(streets, trips, names, slack=1e4, progress=False)
    assert found.slacks.max() < 1e-6
    torch.testing.assert_close(found.expected, found.observed)
    assert found.demonstrations == 60
    assert found.actions == int(trips.lengths.sum())
    counted = sum(
        streets.features(names)[trips.actions[i, :n]].sum(0) for i, n in enumerate(trips.lengths)
    )
    torch.testing.assert_close(found.observed, counted / 60)
    assert "60 trips" in str(found)
    with pytest.raises(ValueError, match="model: expected a model, which has a policy"):
        _ = found.policy


@pytest.mark.parametrize("seed", range(3))
def test_those_that_begin_alike_are_one_example(seed):
    problem = oracles.random_problem(seed, T=3)
    model, reward = problem.model(), features_of(seed, 3, 2)
    seen = drawn(model, reward, torch.tensor([2.0, -1.0, 1.0]), 12, seed)
    found = inference.max_margin(model, seen, reward, progress=False)
    starts = seen.states[:, 0]
    groups = [(starts == s).nonzero().flatten().tolist() for s in starts.unique()]
    table = cai.tabulate(model)
    weights, least = with_planning_inside(table, reward, seen, 1.0, groups=groups)
    np.testing.assert_allclose(psi(found), weights, atol=1e-6)
    assert found.objective == pytest.approx(least, abs=1e-6)
    for group in groups:
        assert len(set(found.slacks[group].tolist())) == 1
    each = inference.max_margin(model, seen, reward, examples="each", progress=False)
    assert found.objective <= each.objective + 1e-9  # Jensen: a maximum of means is no larger


def test_where_no_weights_help_they_are_zero_and_it_is_said():
    """Somebody who errs on a map, one demonstration at a time."""
    model = models.gridworld(["S..", ".P.", "..G"], horizon=6, slip=0.2, pit_reward=-2.0)
    inside = [model.layout.map[i][j] for i, j in model.layout.cells]
    pit, goal = (torch.tensor([x == letter for x in inside]) for letter in "PG")
    reward = cai.LinearReward({"step": lambda s, a: ~goal[s], "pit": lambda s, a: pit[s]})
    paths = model.simulate(inference.soft_values(model).policy, 40, seed=1)
    seen = cai.Demonstrations.from_trajectories(paths)
    found = inference.max_margin(model, seen, reward, examples="each", progress=False)
    assert "All weights are zero" in found.remarks[-1]
    assert 'examples="start" averages' in found.remarks[-1]
    assert abs(found.weights["pit"]) < 1e-6
    table = cai.tabulate(model)
    _, least = with_planning_inside(table, reward, seen[:5], 1.0)
    few = inference.max_margin(model, seen[:5], reward, examples="each", progress=False)
    assert few.objective == pytest.approx(least, abs=1e-6)
    assert few.bound == pytest.approx(few.objective, abs=1e-9)


def test_the_policy_the_history_and_the_table_of_weights():
    model, reward = (
        models.ledge(),
        cai.LinearReward({"state": lambda s, a: s, "action": lambda s, a: a}),
    )
    seen = cai.Demonstrations.from_paths([[0, 1, 2, 3, 3]] * 3, [[1, 1, 1, 0]] * 3)
    found = inference.max_margin(model, seen, reward, progress=False)
    solution = inference.soft_values(found.model, rule="hard")
    torch.testing.assert_close(found.policy.log_probs, solution.policy.log_probs)
    assert found.history.min() == pytest.approx(found.objective)
    assert found.steps == len(found.history)
    data = json.loads(found.to_json())
    assert data["slacks"] == found.slacks.tolist()
    assert data["slack"] == 1.0
    assert data["bound"] == pytest.approx(found.objective, abs=1e-7)
    text = str(found)
    assert text.startswith("Reward by maximum margin planning: 3 demonstrations, 12 actions")
    assert "of 3 demonstrations fall short" in text
    (row,) = cai.compare(model, {"margin": found}).rows.values()
    worth = cai.evaluate(model, found.policy).expected_return
    assert row.expected_return == pytest.approx(worth)
    few = inference.max_margin(model, seen, reward, steps=1, progress=False)
    assert not few.converged
    assert "1 steps were not enough" in str(few)
    assert few.objective >= found.objective


def test_an_interrupt_returns_the_best_so_far(monkeypatch):
    model, reward = models.ledge(), cai.LinearReward({"state": lambda s, a: s})
    seen = cai.Demonstrations.from_paths([[0, 1, 2, 3, 3]], [[1, 1, 1, 0]])
    calls, best = [], Planner._solved

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return best(self, *arguments)

    monkeypatch.setattr(Planner, "_solved", interrupted)
    found = inference.max_margin(model, seen, reward, progress=False)
    assert "interrupted" in found.reason
    assert math.isfinite(found.objective)


def test_a_search_goes_on_from_its_file(tmp_path):
    streets = town()
    trips, file = walks(streets, 20), tmp_path / "margin.pt"
    whole = inference.max_margin(streets, trips, NAMES, progress=False)
    assert whole.steps > 3
    part = inference.max_margin(streets, trips, NAMES, steps=2, checkpoint=file, progress=False)
    assert (part.steps, part.converged) == (2, False)
    rest = inference.max_margin(streets, trips, NAMES, checkpoint=file, progress=False)
    assert rest.steps == whole.steps
    assert torch.equal(rest.history, whole.history)
    assert rest.weights == whole.weights
    with pytest.raises(ValueError, match="checkpoint"):
        inference.max_margin(streets, trips, NAMES, slack=2.0, checkpoint=file, progress=False)
    with pytest.raises(ValueError, match="checkpoint"):
        inference.max_margin(streets, trips[:10], NAMES, checkpoint=file, progress=False)


def test_what_does_not_fit_is_refused(monkeypatch):
    model, reward = models.ledge(), cai.LinearReward({"state": lambda s, a: s})
    seen = cai.Demonstrations.from_paths([[0, 1, 2, 3, 3]], [[1, 1, 1, 0]])
    streets = town()
    trips = walks(streets, 3)

    def refused(match, *arguments, **options):
        with pytest.raises(ValueError, match=match):
            inference.max_margin(*arguments, progress=False, **options)

    refused("slack", model, seen, reward, slack=0.0)
    refused("loss: expected finite numbers of at least 0", model, seen, reward, loss=-1.0)
    refused(r"loss: expected shape \[5, 2\]", model, seen, reward, loss=torch.ones(3))
    refused("examples", model, seen, reward, examples="goal")
    refused("demonstrations", model, [1], reward)
    refused("reward: expected a LinearReward", model, seen, cai.TabularReward())
    refused(
        "demonstration 0: expected one that came to its end", model, seen.with_ends("cut"), reward
    )
    refused("reward: expected a list of names", streets, trips, reward)
    refused("examples", streets, trips, NAMES, examples="start")
    refused("reward: expected different names", streets, trips, ["minutes", "minutes"])
    refused("trip 0: expected one that arrived", streets, trips.with_ends("cut"), NAMES)
    endless, reward_of_it = maze()
    gaining = cai.LinearReward({"a": reward_of_it.features["a"] * 0}, offset=1.0)
    seen_there = wandering(endless, 0.5, 0)
    refused("reward: expected features at which going round", endless, seen_there, gaining)
    stays = dict(reward_of_it.features)
    stays["b"] = stays["b"].clone().index_fill(0, torch.tensor([5]), -2.0)
    message = r"features\['b'\]: expected 0 in absorbing states.*got -2 for action 0 in state 5"
    refused(message, endless, seen_there, cai.LinearReward(stays))
    monkeypatch.setitem(sys.modules, "clarabel", None)
    refused("max_margin: expected clarabel to be installed", model, seen, reward)

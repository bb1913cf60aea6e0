"""The graphical model, edge by edge, and the graph of transitions."""

import math
from collections import defaultdict

import networkx
import pyro
import pyro.distributions as dist
import pytest
import torch

import cai
from cai import models
from cai.graph import graphical_model, transition_graph

NEXT = torch.tensor([[0, 1], [2, 0], [1, 2]])


def finite(dynamics=lambda s, a: dist.Delta(NEXT[s, a]), **changes):
    """Three states and two actions; by default p(s'|s,a) is certain and each reward is -1."""
    arguments = {
        "initial": dist.Categorical(torch.ones(3)),
        "dynamics": dynamics,
        "reward": -1.0,
        "action_prior": dist.Categorical(torch.ones(2)),
        "horizon": 4,
    }
    return cai.TrajectoryModel(**arguments | changes)


def real(dynamics, **changes):
    """A state and an action on the real line."""
    arguments = {
        "initial": dist.Normal(0.0, 1.0),
        "dynamics": dynamics,
        "reward": lambda s, a: -(s**2),
        "action_prior": dist.Normal(0.0, 1.0),
        "horizon": 2,
    }
    return cai.TrajectoryModel(**arguments | changes)


def edges(text):
    """{(parent, child)} from lines such as "s_0 a_0 -> s_1"."""
    found = set()
    for line in text.strip().splitlines():
        parents, children = (side.split() for side in line.split("->"))
        found |= {(parent, child) for parent in parents for child in children}
    return found


def one_step(dynamics, build=finite, **changes):
    """The edges of the first step of a model that are none of its rewards."""
    graph = graphical_model(build(dynamics, **changes), 1)
    return {(u.removeprefix("t0/"), v.removeprefix("t0/")) for u, v in graph.edges if v != "o_0"}


# Ready-made models


def test_ledge():
    graph = graphical_model(models.ledge(), 2)
    assert set(graph.edges) == edges(
        """
        s_0 a_0 t0/gives_way -> s_1
        s_0 a_0 s_1 -> o_0
        s_1 a_1 t1/gives_way -> s_2
        s_1 a_1 s_2 -> o_1
        """
    )
    assert dict(graph.nodes) == {
        "s_0": {"kind": "state", "step": 0, "observed": False},
        "a_0": {"kind": "action", "step": 0, "observed": False},
        "t0/gives_way": {"kind": "latent", "step": 0, "observed": False},
        "s_1": {"kind": "state", "step": 1, "observed": False},
        "o_0": {"kind": "optimality", "step": 0, "observed": True},
        "a_1": {"kind": "action", "step": 1, "observed": False},
        "t1/gives_way": {"kind": "latent", "step": 1, "observed": False},
        "s_2": {"kind": "state", "step": 2, "observed": False},
        "o_1": {"kind": "optimality", "step": 1, "observed": True},
    }


def test_the_nodes_are_the_sites_of_the_program():
    model = models.gridworld("bridge", wind=0.2, horizon=3, discount=0.9)
    sites = pyro.poutine.trace(model).get_trace().nodes
    sites = {name for name, site in sites.items() if site["type"] == "sample"}
    assert set(graphical_model(model)) == sites


def test_the_graph_has_no_cycle_and_starts_at_the_first_state():
    graph = graphical_model(models.gridworld("bridge", wind=0.2, discount=0.9))
    assert networkx.is_directed_acyclic_graph(graph)
    assert graph.in_degree("s_0") == 0


def test_gridworld_with_slip_and_wind():
    """Both latents are drawn whatever the state and the action, and both move the agent."""
    graph = graphical_model(models.gridworld("rooms", slip=0.1, wind=0.2), 1)
    assert set(graph.edges) == edges(
        """
        s_0 a_0 t0/slip t0/gust -> s_1
        s_0 a_0 s_1 -> o_0
        """
    )
    kinds = dict(graph.nodes(data="kind"))
    assert [name for name, kind in kinds.items() if kind == "latent"] == ["t0/slip", "t0/gust"]


@pytest.mark.parametrize(("slip", "wind"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.2)])
def test_gridworld_without_a_latent_has_no_node_for_it(slip, wind):
    graph = graphical_model(models.gridworld("rooms", slip=slip, wind=wind), 1)
    assert ("t0/slip" in graph) == (slip > 0)
    assert ("t0/gust" in graph) == (wind > 0)


def test_a_latent_that_almost_never_matters_is_seen():
    graph = graphical_model(models.lottery(chance=1e-6), 1)
    assert ("t0/wins", "s_1") in graph.edges


def test_lottery_winnings_depend_on_the_ticket():
    assert set(graphical_model(models.lottery(), 1).edges) == edges(
        """
        s_0 a_0 t0/wins -> s_1
        s_0 a_0 s_1 -> o_0
        """
    )


# How many steps


def test_three_steps_are_drawn_unless_the_horizon_is_shorter():
    for horizon, steps in ((10, 3), (3, 3), (2, 2), (1, 1), (None, 3)):
        graph = graphical_model(models.ledge(horizon=horizon))
        states = [node for node, kind in graph.nodes(data="kind") if kind == "state"]
        assert states == [f"s_{t}" for t in range(steps + 1)]


def test_as_many_steps_as_asked_for():
    graph = graphical_model(models.ledge(horizon=10), 7)
    assert {f"o_{t}" for t in range(7)} <= set(graph)
    assert "a_7" not in graph
    assert ("s_6", "s_7") in graph.edges


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_steps_below_one_are_refused(steps):
    with pytest.raises(ValueError, match="steps: expected a whole number of at least 1"):
        graphical_model(models.ledge(), steps)


def test_steps_beyond_the_horizon_are_refused():
    with pytest.raises(ValueError, match="horizon"):
        graphical_model(models.ledge(horizon=2), 5)


# Rewards


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ({"reward": -1.0}, set()),
        ({"reward": -1.0, "arrival_reward": -2.0}, set()),
        ({"reward": lambda s, a: -1.0 * s}, {"s_1", "a_1"}),
        ({"arrival_reward": lambda s, a, s_next: -1.0 * s_next}, {"s_1", "a_1", "s_2"}),
        (
            {
                "reward": lambda s, a: -1.0 * s,
                "arrival_reward": lambda s, a, s_next: -1.0 * s_next,
            },
            {"s_1", "a_1", "s_2"},
        ),
        ({"reward": lambda s, a: -1.0 * s, "arrival_reward": 0.5}, {"s_1", "a_1"}),
    ],
    ids=["constant", "constants", "acting", "arrival", "both", "acting and a constant"],
)
def test_rewards(rewards, expected):
    graph = graphical_model(finite(**rewards), 3)
    assert set(graph.predecessors("o_1")) == expected
    assert graph.nodes["o_1"] == {"kind": "optimality", "step": 1, "observed": True}
    assert graph.out_degree("o_1") == 0


def test_the_final_reward_is_drawn_with_the_last_step_only():
    model = finite(final_reward=lambda s: -1.0 * s, horizon=4)
    for steps in (1, 3):
        assert f"o_{steps}" not in graphical_model(model, steps)
    graph = graphical_model(model, 4)
    assert set(graph.predecessors("o_4")) == {"s_4"}
    assert graph.nodes["o_4"] == {"kind": "optimality", "step": 4, "observed": True}
    assert "o_4" not in graphical_model(finite(horizon=4), 4)


# Discount


def test_survival():
    """The dead stay dead and earn nothing; whether they are does not move the state."""
    model = finite(discount=0.9, horizon=3, final_reward=lambda s: -1.0 * s)
    graph = graphical_model(model)
    assert set(graph.edges) == edges(
        """
        s_0 a_0 -> s_1
        s_1 a_1 -> s_2
        s_2 a_2 -> s_3
        alive_1 -> alive_2 o_1
        alive_2 -> alive_3 o_2
        alive_3 s_3 -> o_3
        """
    )
    for t in (1, 2, 3):
        assert graph.nodes[f"alive_{t}"] == {"kind": "alive", "step": t, "observed": False}
    assert "alive_0" not in graph


def test_without_a_discount_all_survive():
    assert not any(node.startswith("alive") for node in graphical_model(finite(horizon=3)))


# The action prior


def test_an_action_prior_that_depends_on_the_state():
    prior = torch.tensor([[0.5, 0.5], [0.1, 0.9], [1.0, 0.0]])
    graph = graphical_model(finite(action_prior=lambda s: dist.Categorical(prior[s])), 2)
    assert set(graph.predecessors("a_0")) == {"s_0"}
    assert set(graph.predecessors("a_1")) == {"s_1"}
    assert graphical_model(finite(), 2).in_degree("a_1") == 0


def test_a_continuous_action_prior_that_depends_on_the_state():
    prior = {"action_prior": lambda s: dist.Normal(-s, 1.0)}
    graph = graphical_model(real(lambda s, a: dist.Normal(s + a, 0.1), **prior), 1)
    assert set(graph.edges) == edges("s_0 -> a_0\ns_0 a_0 -> s_1 o_0")


# Dynamics


@pytest.mark.parametrize(
    ("dynamics", "parents"),
    [
        (lambda s, a: dist.Delta(NEXT[s, a]), {"s_0", "a_0"}),
        (lambda s, a: dist.Delta(NEXT[s, 0] + 0 * a), {"s_0"}),
        (lambda s, a: dist.Delta(a + 0 * s), {"a_0"}),
        (lambda s, a: dist.Categorical(torch.ones(3)), set()),
        (lambda s, a: dist.Categorical(torch.eye(3)[s] + 0.1), {"s_0"}),
        (lambda s, a: dist.Categorical(torch.eye(3)[a] + 0.1), {"a_0"}),
    ],
    ids=["both", "state", "action", "neither", "drawn by state", "drawn by action"],
)
def test_dynamics_without_latents(dynamics, parents):
    assert one_step(dynamics) == {(parent, "s_1") for parent in parents}


def test_latents_that_depend_on_state_action_and_one_another():
    """A chain (state to mood to effort), an action's own noise, and a latent that does nothing."""

    def dynamics(s, a):
        mood = pyro.sample("mood", dist.Bernoulli(0.1 + 0.3 * s))
        effort = pyro.sample("effort", dist.Categorical(torch.eye(3)[mood.long()] + 0.2))
        noise = pyro.sample("noise", dist.Bernoulli(0.2 + 0.5 * a))
        pyro.sample("idle", dist.Bernoulli(0.5))
        return dist.Delta((effort + noise.long()) % 3)

    assert one_step(dynamics) == edges(
        """
        s_0 -> mood
        mood -> effort
        a_0 -> noise
        effort noise -> s_1
        """
    )
    assert "t0/idle" in graphical_model(finite(dynamics), 1)


def test_a_latent_with_three_parents():
    def dynamics(s, a):
        first = pyro.sample("first", dist.Bernoulli(0.5))
        second = pyro.sample("second", dist.Bernoulli(0.1 + 0.2 * s + 0.3 * a * first))
        return dist.Delta(torch.where(second.bool(), s, 0))

    assert one_step(dynamics) == edges("s_0 a_0 first -> second\nsecond s_0 -> s_1")


def test_latents_of_every_step_have_their_own_nodes():
    def dynamics(s, a):
        first = pyro.sample("first", dist.Bernoulli(0.1 + 0.3 * s))
        return dist.Delta(torch.where(first.bool(), a, 2))

    graph = graphical_model(finite(dynamics), 3)
    for t in range(3):
        assert set(graph.predecessors(f"t{t}/first")) == {f"s_{t}"}
        assert set(graph.predecessors(f"s_{t + 1}")) == {f"t{t}/first", f"a_{t}"}


def test_a_next_state_that_is_drawn_after_a_latent():
    def dynamics(s, a):
        which = pyro.sample("which", dist.Bernoulli(0.3))
        return dist.Categorical(torch.where(which.bool().unsqueeze(-1), torch.eye(3)[s], 1.0))

    assert one_step(dynamics) == edges("s_0 which -> s_1")


def test_a_dependence_in_a_few_states_only():
    """A hundred states, and the latent matters in one of them, the action in another."""

    def dynamics(s, a):
        slip = pyro.sample("slip", dist.Bernoulli(0.01))
        moved = torch.where((s == 17) & slip.bool(), 0, s)
        return dist.Delta(torch.where((s == 60) & (a == 1), 1, moved))

    wide = {"initial": dist.Categorical(torch.ones(100))}
    assert one_step(dynamics, **wide) == edges("s_0 a_0 slip -> s_1")


def test_a_deterministic_site_is_no_node():
    def dynamics(s, a):
        aim = pyro.deterministic("aim", NEXT[s, a])
        return dist.Delta(aim)

    graph = graphical_model(finite(dynamics), 1)
    assert set(graph) == {"s_0", "a_0", "s_1", "o_0"}
    assert set(graph.edges) == edges("s_0 a_0 -> s_1")


def test_a_latent_whose_range_depends_on_the_state():
    """Values are scored given states that they were not drawn from, where they may not lie."""

    def dynamics(s, a):
        gust = pyro.sample("gust", dist.Uniform(0.0, 1.0 + s))
        return dist.Delta((gust > 0.5).long() + 0 * a)

    assert one_step(dynamics) == edges("s_0 -> gust\ngust -> s_1")


# Continuous models


def test_a_continuous_model():
    graph = graphical_model(real(lambda s, a: dist.Normal(s + a, 0.1)))
    assert set(graph.edges) == edges(
        """
        s_0 a_0 -> s_1 o_0
        s_1 a_1 -> s_2 o_1
        """
    )


@pytest.mark.parametrize(
    ("dynamics", "parents"),
    [
        (lambda s, a: dist.Normal(s + 0 * a, 0.1), {"s_0"}),
        (lambda s, a: dist.Normal(0.0, 1 + a**2), {"a_0"}),
        (lambda s, a: dist.Delta(s + a), {"s_0", "a_0"}),
        (lambda s, a: dist.Uniform(s - 1, s + 1), {"s_0"}),
    ],
    ids=["mean", "scale", "certain", "range"],
)
def test_what_a_continuous_next_state_depends_on(dynamics, parents):
    assert one_step(dynamics, real) == {(parent, "s_1") for parent in parents}


def test_continuous_latents():
    def dynamics(s, a):
        wind = pyro.sample("wind", dist.Normal(0.0, 1.0))
        gust = pyro.sample("gust", dist.LogNormal(wind, 0.5))
        push = pyro.sample("push", dist.Normal(a, 0.1))
        return dist.Normal(s + push * gust, 0.1)

    assert one_step(dynamics, real) == edges("wind -> gust\na_0 -> push\ns_0 push gust -> s_1")


def test_states_and_actions_that_are_vectors():
    model = cai.TrajectoryModel(
        initial=dist.Normal(torch.zeros(2), 1.0).to_event(1),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1).to_event(1),
        reward=lambda s, a: -(s**2).sum(-1),
        action_prior=dist.Normal(torch.zeros(2), 1.0).to_event(1),
        horizon=1,
    )
    assert set(graphical_model(model).edges) == edges("s_0 a_0 -> s_1 o_0")


def test_drawing_a_graph_draws_nothing_from_the_generator_and_leaves_no_site():
    model = models.gridworld("bridge", wind=0.2)
    before = torch.get_rng_state()
    with pyro.poutine.trace() as outside:
        first = graphical_model(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert not outside.trace.nodes
    torch.manual_seed(7)
    assert set(graphical_model(model).edges) == set(first.edges)


# Transitions


def transitions(graph):
    """{(state, action): {successor: (probability, reward)}}."""
    found = defaultdict(dict)
    for s, s_next, data in graph.edges(data=True):
        assert s_next not in found[s, data["action"]]
        found[s, data["action"]][s_next] = data["probability"], data["reward"]
    return found


MODELS = {
    "ledge": models.ledge,
    "lottery": models.lottery,
    "lake": lambda: models.gym("FrozenLake-v1"),
    "cliff": lambda: models.gridworld("cliff", wind=0.2, discount=0.9),
    "certain": finite,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_probabilities_out_of_a_state_under_an_action_sum_to_one(name):
    model = MODELS[name]()
    found = transitions(transition_graph(model))
    table = cai.tabulate(model)
    assert len(found) == table.num_states * table.num_actions
    for outcomes in found.values():
        assert all(p > 0 for p, _ in outcomes.values())
        assert sum(p for p, _ in outcomes.values()) == pytest.approx(1, abs=1e-12)


def test_transitions_of_the_ledge():
    """Everything written out by hand: names, probabilities, and both kinds of reward."""
    graph = transition_graph(models.ledge(gives_way=0.25, fall_reward=-7.0))
    assert dict(graph.nodes) == {
        0: {"name": "start", "initial": 1.0},
        1: {"name": "bend", "initial": 0.0},
        2: {"name": "last bend", "initial": 0.0},
        3: {"name": "home", "initial": 0.0},
        4: {"name": "ravine", "initial": 0.0},
    }
    found = transitions(graph)
    approx = pytest.approx
    assert found[0, "short cut"] == {3: approx((0.75, -1.0)), 4: approx((0.25, -8.0))}
    assert found[0, "path"] == {1: approx((1.0, -1.0))}
    for action in ("short cut", "path"):
        assert found[1, action] == {2: approx((1.0, -1.0))}
        assert found[2, action] == {3: approx((1.0, -1.0))}
        assert found[3, action] == {3: approx((1.0, 0.0))}
        assert found[4, action] == {4: approx((1.0, 0.0))}
    assert len(found) == 10


def test_transitions_of_a_grid():
    """S . G in a row and a pit below: a slip is as likely to either side."""
    model = models.gridworld(
        ("S.G", "#P#"), slip=0.2, step_reward=-1.0, goal_reward=3.0, pit_reward=-5.0
    )
    found = transitions(transition_graph(model))
    approx = pytest.approx
    start, middle, goal, pit = range(4)
    assert found[start, "right"] == {middle: approx((0.8, -1.0)), start: approx((0.2, -1.0))}
    assert found[middle, "right"] == {
        goal: approx((0.8, 2.0)),
        middle: approx((0.1, -1.0)),
        pit: approx((0.1, -6.0)),
    }
    assert found[pit, "up"] == {pit: approx((1.0, 0.0))}
    assert found[goal, "left"] == {goal: approx((1.0, 0.0))}


def test_transitions_to_one_state_in_several_ways_are_one_edge():
    """On the lake a slip into a wall and a step along it both stay."""
    found = transitions(transition_graph(models.gym("FrozenLake-v1")))
    assert found[0, "left"] == {
        0: pytest.approx((2 / 3, 0.0)),
        4: pytest.approx((1 / 3, 0.0)),
    }
    assert found[14, "right"][15] == pytest.approx((1 / 3, 1.0))


def test_a_table_is_taken_for_its_model():
    model = models.ledge()
    assert transitions(transition_graph(cai.tabulate(model))) == transitions(
        transition_graph(model)
    )


def test_states_and_actions_without_names_go_by_their_numbers():
    graph = transition_graph(
        finite(reward=lambda s, a: torch.where((s == 1) & (a == 0), -math.inf, -1.0))
    )
    assert [name for _, name in graph.nodes(data="name")] == ["0", "1", "2"]
    assert transitions(graph)[1, "0"] == {2: (1.0, -math.inf)}
    assert transitions(graph)[1, "1"] == {0: (1.0, -1.0)}
    assert sum(p for _, p in graph.nodes(data="initial")) == pytest.approx(1)


def test_a_transition_that_is_almost_impossible_is_one_and_an_impossible_one_is_none():
    P = [[[1.0, 1e-60, 0.0]], [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]
    found = transitions(transition_graph(models.tabular(P, [[0.0]] * 3, horizon=1)))
    assert found[0, "0"] == {0: (1.0, 0.0), 1: (pytest.approx(1e-60), 0.0)}


def test_transitions_need_finite_states():
    with pytest.raises(ValueError, match="initial: enumeration needs finitely many states"):
        transition_graph(real(lambda s, a: dist.Normal(s + a, 0.1)))

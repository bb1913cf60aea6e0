"""The model as a graph: its graphical model, and the transitions between its states.

Dependencies are found by hand: Pyro's ``get_dependencies`` finds no edge to an optimality, which is
a factor, and none at all where values are computed from values, as in the pendulum.
"""

from __future__ import annotations

from typing import Any

import networkx as nx
import pyro
import torch
from pyro import poutine
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.numerics.exclusive import seeded
from cai.program import contract
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import check_alike, prior_sees_state
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_FEWEST, _MOST = 2**12, 2**18  # draws from which dependencies are read off


def graphical_model(model: TrajectoryModel, steps: int | None = None) -> nx.DiGraph:
    """The Bayesian network of Levine's Figure 1, with the sites of the dynamics' own latents.

    Nodes are the sites of the program, with the attributes ``kind`` ("state", "action",
    "optimality", "latent" or "alive"), ``step`` and ``observed``. There is an edge from one site
    to another if the distribution of the second changes with the value of the first: over all
    states and actions if there are fewer than 65 000 pairs, else over random ones. A dependency
    that no random draw shows is missing.

    Args:
        model: the model.
        steps: how many steps to unroll; the horizon, but at most three, if not given.

    Raises:
        ValueError: for steps below one or beyond the horizon.
    """
    checks.check_model(model)
    T = min(model.horizon or 3, 3) if steps is None else steps
    checks.check_count("steps", T)
    if model.horizon is not None and model.horizon < T:
        advice = "there is nothing to draw after the last step"
        checks.refuse("steps", f"at most the horizon, {model.horizon}", str(T), advice)
    # Steps that are alike are examined once.
    every = range(T if "transition" in model.may_change else 1)
    seen, sees_state = [_dependencies(model, t) for t in every], prior_sees_state(model)
    graph = nx.DiGraph()
    graph.add_node("s_0", kind="state", step=0, observed=False)
    for t in range(T):
        latents, edges = seen[min(t, len(seen) - 1)]
        graph.add_node(f"a_{t}", kind="action", step=t, observed=False)
        for name in latents:
            graph.add_node(f"t{t}/{name}", kind="latent", step=t, observed=False)
        graph.add_node(f"s_{t + 1}", kind="state", step=t + 1, observed=False)
        graph.add_node(f"o_{t}", kind="optimality", step=t, observed=True)
        if sees_state:
            graph.add_edge(f"s_{t}", f"a_{t}")
        names = {"s": f"s_{t}", "a": f"a_{t}", "next": f"s_{t + 1}"}
        names |= {name: f"t{t}/{name}" for name in latents}
        graph.add_edges_from((names[parent], names[child]) for parent, child in edges)
        on_arrival = callable(model.arrival_reward) or "arrival_rewards" in model.overridden
        if callable(model.reward) or "rewards" in model.overridden or on_arrival:
            graph.add_edges_from([(f"s_{t}", f"o_{t}"), (f"a_{t}", f"o_{t}")])
        if on_arrival:
            graph.add_edge(f"s_{t + 1}", f"o_{t}")
        if model.discount < 1:
            _add_survival(graph, t)
    if model.pays_at_end and model.horizon == T:
        graph.add_node(f"o_{T}", kind="optimality", step=T, observed=True)
        graph.add_edge(f"s_{T}", f"o_{T}")
        if model.discount < 1:
            graph.add_edge(f"alive_{T}", f"o_{T}")
    return graph


def transition_graph(model: TrajectoryModel | Table) -> nx.MultiDiGraph:
    """The states of a small model and the transitions between them.

    Nodes are the numbers of the states, with the attributes ``name`` and ``initial`` (p(s_0)).
    There is an edge for each state, action and successor of positive probability, with the
    attributes ``action``, ``probability`` and ``reward`` (r + r⁺, reward units).

    Raises:
        ValueError: if the model cannot be tabulated.
    """
    table = tabulate(model)
    check_alike(table, "transition_graph")
    S, A = table.num_states, table.num_actions
    layout = table.layout
    states = layout.states if layout and layout.states else tuple(map(str, range(S)))
    actions = layout.actions if layout and layout.actions else tuple(map(str, range(A)))
    graph = nx.MultiDiGraph()
    for s, p in enumerate(table.log_initial.exp().tolist()):
        graph.add_node(s, name=states[s], initial=p)
    successors = table.successor_index.view(S, A, -1)
    arrival = torch.zeros(()) if table.arrival_reward is None else table.arrival_reward
    reward = (table.reward.unsqueeze(-1) + arrival).expand(successors.shape)
    for s, a, k in (table.log_dynamics > -torch.inf).nonzero().tolist():
        graph.add_edge(
            s,
            successors[s, a, k].item(),
            action=actions[a],
            probability=table.log_dynamics[s, a, k].exp().item(),
            reward=reward[s, a, k].item(),
        )
    return graph


def _add_survival(graph: nx.DiGraph, t: int) -> None:
    """Adds termination: it is final; afterwards actions follow the prior and rewards are zero."""
    graph.add_node(f"alive_{t + 1}", kind="alive", step=t + 1, observed=False)
    if t > 0:
        graph.add_edge(f"alive_{t}", f"alive_{t + 1}")
        graph.add_edge(f"alive_{t}", f"o_{t}")


def _dependencies(model: TrajectoryModel, t: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The latent sites of step t, and its edges between "s", "a", the latents and "next".

    One input at a time is shuffled across a batch: sites whose scores then change depend on it.
    """
    quiet = poutine.block(), pyro.validation_enabled(False)  # values may leave the support
    with seeded(0), torch.no_grad(), quiet[0], quiet[1]:
        s, a = _pairs(model)
        n = len(s)
        sites = contract.Latents({}, (n,))
        contract.next_state(model, s, a, sites, t)
        given = {"s": s, "a": a} | _uniform(sites)
        latents = [name for name in given if name not in ("s", "a")]
        following = contract.next_state(model, s, a, contract.Latents(given, (n,)), t)
        value = following.expand((n,)).sample()
        before = _scores(model, given, given, value, t)
        edges = []
        for parent in given:
            shuffled = given | {parent: given[parent][torch.randperm(n)]}
            after = _scores(model, shuffled, given, value, t)
            edges += [
                (parent, child)
                for child in [*latents, "next"]
                if child != parent and not torch.equal(before[child], after[child])
            ]
    return latents, edges


def _pairs(model: TrajectoryModel) -> tuple[Tensor, Tensor]:
    """States and actions: every pair several times if there are not too many, else random draws."""
    S = support_size(model.initial)
    state = model.initial.sample()
    A = support_size(model.prior(state, 0))
    if S is not None and A is not None and 4 * S * A <= _MOST:
        pair = torch.arange(max(_FEWEST, 4 * S * A)) % (S * A)
        action = model.prior(state, 0).sample()
        return (pair // A).to(state.dtype), (pair % A).to(action.dtype)
    s = _draws(model.initial, _FEWEST)
    return s, _draws(model.prior(s, 0), _FEWEST)


def _draws(distribution: Any, n: int) -> Tensor:
    """n values, evenly spread if the support is finite."""
    size = support_size(distribution)
    if size is not None:
        return torch.randint(size, (n,)).to(distribution.sample().dtype)
    draws: Tensor = distribution.expand((n,)).sample()
    return draws.reshape(n, *distribution.event_shape)


def _uniform(sites: contract.Latents) -> dict[str, Tensor]:
    """Latents drawn uniformly from finite supports, so that rare values occur."""
    return {
        name: value
        if (size := support_size(sites.distributions[name])) is None
        else torch.randint(size, value.shape).to(value.dtype)
        for name, value in sites.values.items()
    }


def _scores(
    model: TrajectoryModel,
    parents: dict[str, Tensor],
    values: dict[str, Tensor],
    value: Tensor,
    t: int,
) -> dict[str, Tensor]:
    """Scores of fixed values of the latents, and of the next state, given their parents."""
    n = len(value)
    sites = contract.Latents(parents, (n,))
    following = contract.next_state(model, parents["s"], parents["a"], sites, t)
    scores = {name: d.log_prob(values[name]) for name, d in sites.distributions.items()}
    return scores | {"next": following.log_prob(value).expand(n)}

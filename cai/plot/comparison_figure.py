"""Figures: every function returns a matplotlib figure with labels, units and a caption."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from cai import checks
from cai import graph as graphs
from cai.evaluation.bracket import EvidenceBracket
from cai.evaluation.report import Comparison, Row
from cai.infinite.fixed_point import fixed_point
from cai.plot.canvas import IMAGINED as _IMAGINED
from cai.plot.canvas import REAL as _REAL
from cai.plot.canvas import caption as _caption
from cai.plot.canvas import figure as _figure
from cai.policies.as_table import policy_log_probs
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.tables import sweeps
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_PARTS = {"kl_start": "#c9ada7", "kl_actions": "#81b29a", "kl_dynamics": _IMAGINED}
_KINDS = {
    "state": "#dbe7f0",
    "action": "#e3f0e6",
    "latent": "#f6e6c8",
    "alive": "#eeeeee",
    "optimality": "#f0c4b4",
}


def comparison(report: Comparison) -> Figure:
    """What each method imagines against what it gets, and where the nats to the posterior go.

    Args:
        report: from :func:`cai.compare`.
    """
    _check_report(report)
    split, between = report.log_evidence is not None, report.bracket
    names, rows = list(report), list(report.values())
    figure, panels = _figure(3 if split or between else 2, height=0.5 * len(rows) + 2.2)
    y = np.arange(len(rows))
    pairs = (
        ("imagined_bound", "elbo", "bound, ELBO (nats)"),
        ("imagined_return", "expected_return", "return (reward units)"),
    )
    for axes, (imagined, real, label) in zip(panels, pairs, strict=False):
        for offset, field, colour, what in (
            (-0.2, imagined, _IMAGINED, "imagined"),
            (0.2, real, _REAL, "real"),
        ):
            values = [_finite(getattr(row, field)) for row in rows]
            error = [getattr(row, f"{field}_stderr", None) or 0.0 for row in rows]
            axes.barh(y + offset, values, 0.36, color=colour, label=what, xerr=error)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set(yticks=y, yticklabels=names, xlabel=label)
    panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False)
    if split:
        left = np.zeros(len(rows))
        for field, colour in _PARTS.items():
            parts = np.array([_finite(getattr(row, field)) for row in rows])
            panels[2].barh(y, parts, 0.6, left, color=colour, label=field.removeprefix("kl_"))
            left += parts
        panels[2].set(yticks=y, yticklabels=names, xlabel="KL to the exact posterior (nats)")
        panels[2].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False)
    elif between is not None:
        _between(panels[2], rows, between)
        panels[2].set(yticks=y, yticklabels=names, xlabel="KL to the exact posterior (nats)")
    for axes in panels:
        axes.invert_yaxis()
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
    _caption(
        figure,
        "Where the orange bar reaches further right than the blue one, a method expects more than "
        "its policy gets in the true dynamics."
        + (
            " Right: what separates each policy, with the true dynamics, from the exact posterior; "
            "the dynamics part is luck that no policy can have."
            if split
            else " Right: how far each policy is from the exact posterior, which is out of reach: "
            "at least the dark part."
            if between
            else ""
        ),
    )
    return figure


def _between(axes: Axes, rows: list[Row], between: EvidenceBracket) -> None:
    """The divergence of each row, which is known between two numbers only."""
    y = np.arange(len(rows))
    least = np.array([_finite(row.kl_lower) for row in rows])
    most = np.array([_finite(row.kl_upper) for row in rows])
    error = [_finite(row.kl_lower_stderr) for row in rows]
    axes.barh(y, least, 0.6, color=_PARTS["kl_actions"], label="at least", xerr=error)
    what = "at most" if between.kind == "bound" else "estimate, no bound"
    width = np.maximum(most - least, 0)
    axes.barh(y, width, 0.6, least, color=_PARTS["kl_actions"], alpha=0.4, label=what)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False)


def occupancy(report: Comparison) -> Figure:
    """How often each state is visited: as each method imagines it, and in the true dynamics.

    On a map where the model has one, else as bars; counted over all steps, as a share of the
    time alive.

    Args:
        report: from :func:`cai.compare`, of a model that can be tabulated.

    Raises:
        ValueError: where the model has no finite states.
    """
    table = _table(report)
    believers = {
        name: row
        for name, row in report.items()
        if isinstance(row.method, Chain) and row.method.optimism != 0
    }
    others = {name: row for name, row in report.items() if name not in believers}
    rows = believers | others
    if table.layout is None or table.layout.map is None:
        return _occupancy_bars(rows, table)
    pictures = [(f"{name}\nimagined", row.method.states) for name, row in believers.items()]
    for name, row in rows.items():
        assert row.evaluation.states is not None
        pictures.append((f"{name}\nreal", row.evaluation.states))
    shares = [_share(states) for _, states in pictures]
    figure, panels = _map_figure(len(pictures), table.layout, bar=True)
    top = max(share.max().item() for share in shares)
    for axes, (title, _), share in zip(panels, pictures, shares, strict=True):
        image = _paint(axes, table.layout, share, "YlOrRd", 0.0, top)
        axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=panels, label="share of time", shrink=0.8)
    _caption(
        figure,
        "Colour: the share of all steps spent in each cell. What is imagined and what is real "
        "differ where a method counts on luck.",
    )
    return figure


def policies(report: Comparison) -> Figure:
    """The policy of each method: arrows on the map, or the probability of each action.

    A policy that changes with time is shown as it acts on average, weighted by how often it is in
    a state at each step; where it never is, as at step 0.

    Args:
        report: from :func:`cai.compare`, of a model that can be tabulated.

    Raises:
        ValueError: where the model has no finite states.
    """
    table = _table(report)
    layout = table.layout
    if layout is None or layout.map is None or layout.moves is None:
        return _policy_bars(report, table)
    figure, panels = _map_figure(len(report), layout)
    for axes, (name, row) in zip(panels, report.items(), strict=True):
        _paint(axes, layout, torch.zeros(table.num_states), "Greys", 0.0, 1.0)
        _arrows(axes, layout, row, table)
        axes.set_title(name, fontsize=9)
    _caption(
        figure,
        "The length of an arrow is the probability of its action, on average over the steps at "
        "which the policy is in that cell; grey where it never comes.",
    )
    return figure


def optimism(model: TrajectoryModel | Table) -> Figure:
    """How many nats the exact posterior believes each state to be better than it is.

    (V^1_0(s) - V^0_0(s))/α: the exact values at optimism 1 less those in the true dynamics.

    Args:
        model: a model that can be tabulated, or its table.

    Raises:
        ValueError: where the model cannot be tabulated, or without an end has no finite values.
    """
    table = tabulate(model)
    if table.horizon is None:
        values = [fixed_point(table, eta).log_values for eta in (1.0, 0.0)]
    else:
        values = [sweeps.backward(table, eta)[0] for eta in (1.0, 0.0)]
    surplus = values[0] - values[1]
    surplus = surplus.where(~surplus.isnan(), 0.0)  # -inf - -inf at dead ends: nothing to hope
    layout, label = table.layout, "optimism (nats)"
    if layout is None or layout.map is None:
        figure, (axes,) = _figure(1, height=3.4)
        axes.bar(range(table.num_states), [_finite(x) for x in surplus.tolist()], color=_IMAGINED)
        for s in surplus.isinf().nonzero().flatten().tolist():
            axes.text(s, 0, "∞", ha="center", va="bottom", color=_IMAGINED, fontsize=14)
        axes.set(ylabel=label, xlabel="state")
        _state_ticks(axes, table)
    else:
        figure, (axes,) = _map_figure(1, layout, bar=True)
        finite = surplus.isfinite()
        highest = surplus[finite].max() if finite.any() else torch.tensor(1.0)
        shown = surplus.where(finite, highest)
        image = _paint(axes, layout, shown, "YlOrRd", 0.0, None, best=True)
        assert layout.cells is not None
        for s in surplus.isinf().nonzero().flatten().tolist():
            i, j = layout.cells[s]
            axes.text(j, i, "∞", ha="center", va="center", fontsize=14)
        figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    _caption(
        figure,
        "By how much the exact posterior, which may bend the dynamics, overrates each state at "
        "step 0, against the best policy in the true dynamics.",
    )
    return figure


def losses(fitted: Any, bound: float | None = None) -> Figure:
    """The ELBO over the steps of a fit, with its running mean.

    Args:
        fitted: from :func:`cai.inference.fit`.
        bound: the best possible ELBO in nats, ``soft_values(model).elbo``, drawn as a line.
    """
    if not isinstance(getattr(fitted, "running_mean", None), Tensor):
        advice = "take what inference.fit returns"
        checks.refuse("fitted", "an inference.Fit", type(fitted).__name__, advice)
    figure, (axes,) = _figure(1, height=3.4)
    axes.plot(-fitted.losses.numpy(), color=_REAL, alpha=0.35, linewidth=0.8, label="ELBO")
    axes.plot(-fitted.running_mean.numpy(), color=_REAL, label="running mean of 50 steps")
    if bound is not None:
        axes.axhline(bound, color=_IMAGINED, linestyle="--", label="the best with fixed dynamics")
    axes.set(xlabel="step", ylabel="ELBO (nats)")
    axes.legend(frameon=False)
    _caption(figure, f"Training ended at an ELBO of {fitted.elbo:.4f} nats; higher is better.")
    return figure


def graphical_model(model: TrajectoryModel, steps: int | None = None) -> Figure:
    """The graphical model of Levine's Figure 1, with the dynamics' own latent sites.

    Args:
        model: the model.
        steps: how many steps to unroll; the horizon, but at most three, if not given.
    """
    graph = graphs.graphical_model(model, steps)
    places = {}
    rows = {"optimality": 1.0, "state": 0.0, "action": -1.0, "latent": -2.0, "alive": 2.0}
    seen: dict[tuple[str, int], int] = {}
    for node, data in graph.nodes(data=True):
        k = seen.setdefault((data["kind"], data["step"]), 0)
        seen[data["kind"], data["step"]] += 1
        shift = {"action": 0.8, "optimality": 0.8}.get(data["kind"], 0.0)
        if data["kind"] == "latent":  # side by side, so that no arrow passes through another node
            shift, k = 0.05 + 0.45 * (k % 3), k // 3
        if node == f"o_{model.horizon}":
            shift = 0.0  # the final reward is paid for the state alone
        places[node] = (2.4 * data["step"] + shift, rows[data["kind"]] - 0.8 * k)
    width = 1.75 * (max(x for x, _ in places.values()) + 1.2)
    height = 1.25 * (max(y for _, y in places.values()) - min(y for _, y in places.values())) + 1.6
    figure = Figure(figsize=(max(5.0, width), height), layout="constrained")
    axes = figure.subplots()
    colours = [_KINDS[kind] for _, kind in graph.nodes(data="kind")]
    nx.draw_networkx(
        graph,
        places,
        ax=axes,
        with_labels=False,
        node_color=colours,
        edgecolors="#333333",
        linewidths=[2.4 if seen else 0.8 for _, seen in graph.nodes(data="observed")],
        node_size=1500,
        arrowsize=12,
        edge_color="#555555",
    )
    for node, (x, y) in places.items():
        name, step = _site_label(node)
        inside = len(name) <= 5
        label = f"${name}_{{{step}}}$" if len(name) == 1 else f"{name}$_{{{step}}}$"
        size = 12 if len(name) == 1 else 9
        axes.text(x, y if inside else y - 0.33, label, ha="center", va="center", fontsize=size)
    axes.margins(0.12)
    axes.axis("off")
    shown = max(data["step"] for _, data in graph.nodes(data=True) if data["kind"] == "state")
    first = "the first" if shown == 1 else f"the first {shown}"
    more = "" if shown == model.horizon else f"; {first} of {model.horizon or '∞'} steps"
    _caption(
        figure,
        f"States, actions and optimality (thick rims: observed){more}. An arrow leads from what is "
        "drawn first to what is seen to depend on it.",
    )
    return figure


def _map_figure(n: int, layout: Layout, bar: bool = False) -> tuple[Figure, list[Axes]]:
    assert layout.map is not None
    rows, columns = len(layout.map), len(layout.map[0])
    across = n if n * columns <= 20 else min(n, max(1, 24 // columns))
    down = -(-n // across)
    cell = min(0.55, 4.6 / max(rows, columns))
    size = (max(4.6, across * (columns * cell + 0.5) + 1.2 * bar), down * (rows * cell + 0.6) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in panels[n:]:
        axes.remove()
    return figure, panels[:n]


def _check_report(report: Any) -> None:
    """Raises ValueError unless it is what compare returns."""
    checks.check_kind("report", report, Comparison, "a cai.Comparison", "take that of cai.compare")


def _table(report: Comparison) -> Table:
    _check_report(report)
    if not isinstance(report.posterior, Chain):
        raise ValueError(
            "report: expected a comparison on a model with finitely many states, to draw them one "
            "by one; for other models plot.comparison and plot.losses are at hand"
        )
    return report.posterior.table


def _share(states: Tensor) -> Tensor:
    """The share of all steps alive, s_0 … s_T or for ever, that is spent in each state."""
    visits = states.sum(0) if states.dim() == 2 else states
    return visits / visits.sum().clamp(min=1e-300)


def _absorbing(table: Table) -> Tensor:
    """(S,): the states that no action leaves, where a policy says nothing."""
    stay = table.dense(table.log_dynamics).diagonal(dim1=0, dim2=2)
    return (stay > 1 - 1e-12).all(0)


def _occupancy_bars(rows: dict[str, Row], table: Table) -> Figure:
    figure, panels = _figure(len(rows), height=3.4)
    x = np.arange(table.num_states)
    for axes, (name, row) in zip(panels, rows.items(), strict=True):
        assert row.evaluation.states is not None
        pictures = [("real", row.evaluation.states, _REAL)]
        if isinstance(row.method, Chain) and row.method.optimism != 0:
            pictures.insert(0, ("imagined", row.method.states, _IMAGINED))
        for k, (what, states, colour) in enumerate(pictures):
            shift = (k - (len(pictures) - 1) / 2) * 0.4
            axes.bar(x + shift, _share(states).numpy(), 0.4, color=colour, label=what)
        axes.set_title(name, fontsize=9)
        axes.legend(frameon=False, fontsize=8)
        _state_ticks(axes, table)
    panels[0].set_ylabel("share of time")
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0, top)
    _caption(
        figure,
        "The share of all steps spent in each state. Orange: as the method imagines it, with its "
        "own bent dynamics. Blue: what its policy meets in the true dynamics.",
    )
    return figure


def _policy_bars(report: Comparison, table: Table) -> Figure:
    figure, panels = _figure(len(report), height=3.4)
    layout, A = table.layout, table.num_actions
    names = layout.actions if layout and layout.actions else tuple(map(str, range(A)))
    states = (~_absorbing(table)).nonzero().flatten()
    x = np.arange(len(states))
    for axes, (title, row) in zip(panels, report.items(), strict=True):
        visits, otherwise = _visits(row, table)
        total = visits.sum(-1, keepdim=True)
        policy = torch.where(total > 0, visits / total.clamp(min=1e-300), otherwise)[states]
        bottom = np.zeros(len(states))
        for a in range(A):
            axes.bar(x, policy[:, a].numpy(), 0.7, bottom, color=f"C{a % 10}", label=names[a])
            bottom += policy[:, a].numpy()
        axes.set_title(title, fontsize=9)
        _state_ticks(axes, table, states.tolist())
    panels[0].set_ylabel("probability of the action")
    panels[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _caption(
        figure,
        "The policy in every state that can be left, on average over the steps at which it is "
        "there.",
    )
    return figure


def _visits(row: Row, table: Table) -> tuple[Tensor, Tensor]:
    """How often each action is taken in each state, (S, A), and the policy at step 0, (S, A)."""
    assert row.evaluation.state_actions is not None
    log_policy = policy_log_probs(getattr(row.method, "policy", row.method), table).detach()
    if table.horizon is None:
        return row.evaluation.state_actions, log_policy.exp()
    return row.evaluation.state_actions.sum(0), log_policy[0].exp()


def _arrows(axes: Axes, layout: Layout, row: Row, table: Table) -> None:
    """One arrow for each action that moves, a dot for those that do not."""
    assert layout.cells is not None
    assert layout.moves is not None
    visits, otherwise = _visits(row, table)
    absorbing = _absorbing(table).tolist()
    by_cell: dict[tuple[int, int], list[int]] = {}
    for s, cell in enumerate(layout.cells):
        if not absorbing[s]:
            by_cell.setdefault(cell, []).append(s)
    for (i, j), states in by_cell.items():
        counts = visits[states].sum(0)
        seen = counts.sum() > 0
        policy = counts / counts.sum() if seen else otherwise[states].mean(0)
        colour = _REAL if seen else "#aaaaaa"
        for (di, dj), p in zip(layout.moves, policy.tolist(), strict=True):
            if p < 0.02:
                continue
            if (di, dj) == (0, 0):
                axes.plot(j, i, "o", color=_IMAGINED, markersize=9 * p**0.5)
                continue
            axes.annotate(
                "",
                xy=(j + 0.46 * p * dj, i + 0.46 * p * di),
                xytext=(j, i),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": colour,
                    "lw": 0.6 + 1.2 * p,
                    "shrinkA": 0,
                    "shrinkB": 0,
                    "mutation_scale": 5 + 5 * p,
                },
            )


def _state_ticks(axes: Axes, table: Table, states: list[int] | None = None) -> None:
    states = list(range(table.num_states)) if states is None else states
    layout = table.layout
    if layout is not None and layout.states is not None:
        names = [layout.states[s] for s in states]
        axes.set_xticks(range(len(states)), names, rotation=30, ha="right", fontsize=8)
    else:
        every = max(1, len(states) // 12)
        axes.set_xticks(range(0, len(states), every), map(str, states[::every]), fontsize=8)
        axes.set_xlabel("state")


def _site_label(site: str) -> tuple[str, str]:
    """The name and the step of a site: s_3 and t3/slip are ("s", "3") and ("slip", "3")."""
    if "/" in site:
        step, name = site.split("/", 1)
        return name.replace("_", " "), step[1:]
    name, _, step = site.rpartition("_")
    return name, step


def _finite(x: float | None) -> float:
    """What can be drawn of a number: nothing for infinities."""
    return x if x is not None and np.isfinite(x) else 0.0


def _paint(
    axes: Axes,
    layout: Layout,
    values: Tensor,
    colours: str,
    low: float,
    high: float | None,
    best: bool = False,
) -> Any:
    """Colours the cells of a map; states that share a cell add up, or show the best of them."""
    assert layout.map is not None
    assert layout.cells is not None
    picture = np.full((len(layout.map), len(layout.map[0])), np.nan)
    for (i, j), value in zip(layout.cells, values.tolist(), strict=True):
        if np.isnan(picture[i, j]):
            picture[i, j] = value
        else:
            picture[i, j] = max(picture[i, j], value) if best else picture[i, j] + value
    image = axes.imshow(picture, cmap=colours, vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[])
    lines: dict[str, Any] = {"colors": "#bbbbbb", "linewidth": 0.5}
    axes.hlines(np.arange(len(layout.map) - 1) + 0.5, *axes.get_xlim(), **lines)
    axes.vlines(np.arange(len(layout.map[0]) - 1) + 0.5, *axes.get_ylim(), **lines)
    for i, row in enumerate(layout.map):
        for j, letter in enumerate(row):
            if letter == "#":
                axes.fill_between([j - 0.5, j + 0.5], i - 0.5, i + 0.5, color="#444444")
            elif letter not in ". F":
                text = axes.text(j - 0.45, i - 0.42, letter, fontsize=9, va="top", color="#333333")
                text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    return image

"""The figure of the graphical model."""

from __future__ import annotations

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cai import graph as graphs
from cai.drawing.canvas import captioned
from cai.program.trajectory import TrajectoryModel

_KINDS = {
    "state": "#dbe7f0",
    "action": "#e3f0e6",
    "latent": "#f6e6c8",
    "alive": "#eeeeee",
    "optimality": "#f0c4b4",
}


def graphical_model(model: TrajectoryModel, steps: int | None = None) -> Figure:
    """The graphical model of Levine's Figure 1, with the dynamics' own latent sites.

    Args:
        model: the model.
        steps: how many steps to unroll; the horizon, but at most three, if not given.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the model is a table, or steps is not a whole number of at least 1.

    >>> from cai import models, plot
    >>> figure = plot.graphical_model(models.ledge(), steps=2)
    """
    graph = graphs.graphical_model(model, steps)
    places = _places(graph, f"o_{model.horizon}")
    width = 1.75 * (max(x for x, _ in places.values()) + 1.2)
    height = 1.25 * (max(y for _, y in places.values()) - min(y for _, y in places.values())) + 1.6
    canvas = Figure(figsize=(max(5.0, width), height), layout="constrained")
    axes = canvas.subplots()
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
    _label(axes, graph, places)
    axes.margins(0.12)
    axes.axis("off")
    shown = max(data["step"] for _, data in graph.nodes(data=True) if data["kind"] == "state")
    first = "the first" if shown == 1 else f"the first {shown}"
    more = "" if shown == model.horizon else f"; {first} of {model.horizon or '∞'} steps"
    return captioned(
        canvas,
        f"States, actions and optimality (thick rims: observed){more}. Arrows point from "
        "parents to children.",
    )


def _places(graph: nx.DiGraph, last: str) -> dict[str, tuple[float, float]]:
    """The position of each node: a row for each kind, from left to right by step.

    Args:
        graph: the nodes.
        last: the optimality of the final reward, which depends on the state alone.
    """
    places = {}
    rows = {"optimality": 1.0, "state": 0.0, "action": -1.0, "latent": -2.0, "alive": 2.0}
    seen: dict[tuple[str, int], int] = {}
    for node, data in graph.nodes(data=True):
        k = seen.setdefault((data["kind"], data["step"]), 0)
        seen[data["kind"], data["step"]] += 1
        shift = {"action": 0.8, "optimality": 0.8}.get(data["kind"], 0.0)
        if data["kind"] == "latent":  # side by side, so that no arrow passes through another node
            shift, k = 0.05 + 0.45 * (k % 3), k // 3
        if node == last:
            shift = 0.0
        places[node] = (2.4 * data["step"] + shift, rows[data["kind"]] - 0.8 * k)
    return places


def _label(axes: Axes, graph: nx.DiGraph, places: dict[str, tuple[float, float]]) -> None:
    """Writes states, actions and optimality into their nodes, names of other sites below them."""
    for node, (x, y) in places.items():
        # s_3 and t3/fast_slip are named "s" and "fast slip".
        name = node.partition("/")[2].replace("_", " ") or node.rpartition("_")[0]
        step = graph.nodes[node]["step"]
        inside = graph.nodes[node]["kind"] in ("state", "action", "optimality")
        label = f"${name}_{{{step}}}$" if len(name) == 1 else f"{name}$_{{{step}}}$"
        size = 12 if len(name) == 1 else 9
        axes.text(x, y if inside else y - 0.33, label, ha="center", va="center", fontsize=size)

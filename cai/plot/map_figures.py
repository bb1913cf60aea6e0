"""Occupancies and policies of each method, on a map or as bars, and rewards on a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cai import checks
from cai.evaluation.report import Comparison, Row
from cai.plot.canvas import IMAGINED, REAL, captioned, check_report, figure
from cai.plot.maps import map_figure, paint, pays, state_ticks, write_numbers
from cai.policies.as_table import policy_log_probs
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table


def occupancy(report: Comparison) -> Figure:
    """How often each state is visited: as each method imagines it, and in the true dynamics.

    On a map if the model has one, else as bars; as a fraction of all steps alive.

    Args:
        report: from :func:`cai.compare`, of a model that can be tabulated.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the model has no finite states.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> figure = plot.occupancy(cai.compare(model, {"posterior": inference.posterior(model)}))
    """
    table, layout = _table(report), _table(report).layout
    shares = {name: _shares(row) for name, row in report.items()}
    # Those that imagine something come first.
    shares = dict(sorted(shares.items(), key=lambda each: "imagined" not in each[1]))
    if layout is None or layout.map is None:
        return _occupancy_bars(shares, table)
    pictures = {
        f"{name}\n{what}": both[what]
        for what in ("imagined", "real")
        for name, both in shares.items()
        if what in both
    }
    canvas, panels = map_figure(len(pictures), layout, bar=True)
    top = max(share.max().item() for share in pictures.values())
    for axes, (title, share) in zip(panels, pictures.items(), strict=True):
        image = paint(axes, layout, share, "YlOrRd", 0.0, top)
        axes.set_title(title, fontsize=9)
    canvas.colorbar(image, ax=panels, label="share of time", shrink=0.8)
    return captioned(
        canvas,
        "Colour: the share of all steps spent in each cell. Imagined and real occupancies differ "
        "if a method changes the dynamics.",
    )


def policies(report: Comparison) -> Figure:
    """The policy of each method: arrows on the map, or the probability of each action.

    A policy that changes with time is averaged over steps, weighted by how often it is in the state
    at each step; in states that it never visits it is shown at step 0.

    Args:
        report: from :func:`cai.compare`, of a model that can be tabulated.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the model has no finite states.

    >>> import cai
    >>> from cai import inference, models, plot
    >>> model = models.ledge()
    >>> figure = plot.policies(cai.compare(model, {"posterior": inference.posterior(model)}))
    """
    table = _table(report)
    layout = table.layout
    if layout is None or layout.map is None or layout.moves is None:
        return _policy_bars(report, table)
    canvas, panels = map_figure(len(report), layout)
    text = (
        "The length of an arrow is the probability of its action, averaged over the steps at "
        "which the policy is in that cell."
    )
    unvisited = False
    for axes, (name, row) in zip(panels, report.items(), strict=True):
        paint(axes, layout, torch.zeros(table.num_states), "Greys", 0.0, 1.0)
        unvisited = _arrows(axes, layout, row, table) or unvisited
        axes.set_title(name, fontsize=9)
    if any(axes.lines for axes in panels):
        text += " A dot is an action that does not move."
    if unvisited:
        text += " Grey: never visited."
    return captioned(canvas, text)


def reward_map(rewards: Any, model: TrajectoryModel | Table) -> Figure:
    """What each cell of a map pays, as a fit found it, or as a model has it.

    The number of a cell is what is paid for acting there, on average over the actions that the
    action prior allows, plus what is paid on arrival from another cell, on average over the moves
    that lead there (each with its probability under the action prior, from all cells alike). States
    that share a cell are averaged, and rewards that depend on the step are averaged over steps.

    Args:
        rewards: a result of :func:`cai.inference.fit_reward` or ``reward_posterior``, a
            ``cai.LinearReward`` with weights, a model with rewards of its own, or numbers (S,), one
            for each state; or name -> one of these, side by side, such as the mean and the spread
            of ``posterior.reward_map()``.
        model: the model whose map it is, or its table.

    Returns:
        A Matplotlib figure, which is not shown yet: ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the model has no map, or a reward is none of these.

    >>> import cai
    >>> from cai import models, plot
    >>> model = models.gridworld(["S.G"], horizon=5, slip=0.0)
    >>> reward = cai.LinearReward({"steps": lambda s, a: s < 2})
    >>> figure = plot.reward_map(reward.weighted([-1.0]), model)
    """
    checks.check_model(model, table=True)
    layout = model.layout
    if layout is None or layout.map is None or layout.cells is None:
        came = "one without a map"
        checks.refuse("model", "a model on a map", came, "plot.estimates draws the weights")
    given = rewards if isinstance(rewards, Mapping) else {"": rewards}
    paid = {name: pays(f"rewards[{name!r}]", x, model) for name, x in given.items()}
    if not paid:
        checks.refuse("rewards", "at least one", "none", "inference.fit_reward(…)")
    share = Counter(layout.cells)
    each = torch.tensor([1.0 / share[cell] for cell in layout.cells]).double()
    canvas, panels = map_figure(len(paid), layout, bar=True)
    images = [
        paint(axes, layout, x * each, "RdBu", -1.0, 1.0)
        for axes, x in zip(panels, paid.values(), strict=True)
    ]
    pictures = [np.asarray(image.get_array().filled(np.nan)) for image in images]
    top = max(np.abs(x[np.isfinite(x)]).max(initial=0.0) for x in pictures) or 1.0
    for axes, name, image, picture in zip(panels, paid, images, pictures, strict=True):
        image.set_clim(-top, top)
        write_numbers(axes, picture, top)
        axes.set_title(name, fontsize=9)
    canvas.colorbar(images[0], ax=panels, label="reward (reward units)", shrink=0.8)
    text = (
        "What a cell pays: for acting there, plus on arrival there from another cell, each on "
        "average over actions. Blue is a gain, red a cost, white zero."
    )
    if any((x == -torch.inf).any() for x in paid.values()):
        text += " Empty where every action is forbidden."
    if any(getattr(x, "unidentified", ()) for x in given.values()):
        text += " The data do not determine all of it: see what is not identified in the estimates."
    return captioned(canvas, text)


def _table(report: Comparison) -> Table:
    check_report(report)
    if report.table is None:
        raise ValueError(
            "report: expected a comparison on a model with finitely many states, to draw them one "
            "by one, got another; for continuous models use plot.trajectories, for any model "
            "plot.comparison or plot.losses"
        )
    return report.table


def _shares(row: Row) -> dict[str, Tensor]:
    """The share of all steps alive, s_0 … s_T or for ever, in each state: as imagined, and real."""
    assert row.evaluation.states is not None
    states = {"real": row.evaluation.states}
    if row.belief is not None and row.belief.optimism != 0:
        imagined = row.belief.imagined_states()
        states = states if imagined is None else {"imagined": imagined} | states
    visits = {what: x.sum(0) if x.dim() == 2 else x for what, x in states.items()}
    return {what: x / x.sum().clamp(min=1e-300) for what, x in visits.items()}


def _absorbing(table: Table) -> Tensor:
    """(S,): the states that no action leaves, where the policy does not matter."""
    stay = table.dense(table.log_dynamics).diagonal(dim1=-3, dim2=-1)
    return (stay > 1 - 1e-12).flatten(0, -2).all(0)


def _occupancy_bars(shares: dict[str, dict[str, Tensor]], table: Table) -> Figure:
    canvas, panels = figure(len(shares), height=3.4)
    x, colours = np.arange(table.num_states), {"imagined": IMAGINED, "real": REAL}
    for axes, (name, both) in zip(panels, shares.items(), strict=True):
        for k, (what, share) in enumerate(both.items()):
            shift = (k - (len(both) - 1) / 2) * 0.4
            axes.bar(x + shift, share.numpy(), 0.4, color=colours[what], label=what)
        axes.set_title(name, fontsize=9)
        axes.legend(frameon=False, fontsize=8)
        state_ticks(axes, table)
    panels[0].set_ylabel("share of time")
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0, top)
    return captioned(
        canvas,
        "The share of all steps spent in each state. Orange: as the method imagines it, under its "
        "own dynamics. Blue: under its policy in the true dynamics.",
    )


def _policy_bars(report: Comparison, table: Table) -> Figure:
    canvas, panels = figure(len(report), height=3.4)
    layout, A = table.layout, table.num_actions
    names = layout.actions if layout and layout.actions else tuple(map(str, range(A)))
    states = (~_absorbing(table)).nonzero().flatten()
    x, colours = np.arange(len(states)), colormaps["viridis"](np.linspace(0.1, 0.95, A))
    for axes, (title, row) in zip(panels, report.items(), strict=True):
        visits, otherwise = _visits(row, table)
        total = visits.sum(-1, keepdim=True)
        policy = torch.where(total > 0, visits / total.clamp(min=1e-300), otherwise)[states]
        bottom = np.zeros(len(states))
        for a in range(A):
            axes.bar(x, policy[:, a].numpy(), 0.7, bottom, color=colours[a], label=names[a])
            bottom += policy[:, a].numpy()
        axes.set_title(title, fontsize=9)
        state_ticks(axes, table, states.tolist())
    panels[0].set_ylabel("probability of the action")
    panels[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return captioned(
        canvas,
        "The policy in each state that is not absorbing, averaged over the steps at which it is "
        "there.",
    )


def _visits(row: Row, table: Table) -> tuple[Tensor, Tensor]:
    """Expected counts of each action in each state, (S, A), and the policy at step 0, (S, A)."""
    assert row.evaluation.state_actions is not None
    log_policy = policy_log_probs(getattr(row.method, "policy", row.method), table).detach()
    if table.horizon is None:
        return row.evaluation.state_actions, log_policy.exp()
    return row.evaluation.state_actions.sum(0), log_policy[0].exp()


def _arrows(axes: Axes, layout: Layout, row: Row, table: Table) -> bool:
    """Draws an arrow for each action that moves, a dot for others; whether any cell is grey."""
    assert layout.cells is not None
    assert layout.moves is not None
    visits, otherwise = _visits(row, table)
    absorbing = _absorbing(table).tolist()
    by_cell: dict[tuple[int, int], list[int]] = {}
    for s, cell in enumerate(layout.cells):
        if not absorbing[s]:
            by_cell.setdefault(cell, []).append(s)
    grey = False
    for (i, j), states in by_cell.items():
        counts = visits[states].sum(0)
        seen = counts.sum() > 0
        policy = counts / counts.sum() if seen else otherwise[states].mean(0)
        grey = grey or not seen
        colour = REAL if seen else "#aaaaaa"
        for (di, dj), p in zip(layout.moves, policy.tolist(), strict=True):
            if p < 0.02:
                continue
            if (di, dj) == (0, 0):
                axes.plot(j, i, "o", color=IMAGINED, markersize=9 * p**0.5)
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
    return grey

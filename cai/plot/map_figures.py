"""Occupancies of each method, on a map or as bars, and rewards on a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from cai import checks
from cai.drawing.canvas import captioned, check_drawn, figure, tabulated
from cai.drawing.maps import colour_bar, map_figure, on_map, paint, state_ticks, write_numbers
from cai.drawing.palette import IMAGINED, REAL, SHARES, SIGNED, lettering
from cai.drawing.signs import three_digits
from cai.evaluation.report import Comparison, Row
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel
from cai.tables.state_rewards import state_rewards
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_COLOURS = {"imagined": IMAGINED, "real": REAL}
_TICKS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the bar, on its scale of roots


def occupancy(report: Comparison) -> Figure:
    """How often each state is visited: as each method imagines it, and in the true dynamics.

    On a map if the model has one, else as bars; as a fraction of all steps alive. The scale of
    colours is that of square roots, so that cells that are seldom visited differ from those that
    never are; numbers are percent.

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
    table = tabulated(report)
    shares = {name: _shares(row) for name, row in report.items()}
    # Those that imagine something come first.
    shares = dict(sorted(shares.items(), key=lambda each: "imagined" not in each[1]))
    if table.layout is None or table.layout.map is None:
        return _bars(shares, table)
    return _maps(shares, table.layout)


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
    paid = {name: _pays(f"rewards[{name!r}]", x, model) for name, x in given.items()}
    if not paid:
        checks.refuse("rewards", "at least one", "none", "inference.fit_reward(…)")
    share = Counter(layout.cells)
    each = torch.tensor([1.0 / share[cell] for cell in layout.cells]).double()
    pictures = {name: on_map(layout, x * each) for name, x in paid.items()}
    top = max(np.abs(x[np.isfinite(x)]).max(initial=0.0) for x in pictures.values()) or 1.0
    canvas, panels = map_figure(len(paid), layout, bar=True)
    for axes, (name, picture) in zip(panels, pictures.items(), strict=True):
        image = paint(axes, layout, picture, SIGNED, Normalize(-top, top))
        write_numbers(axes, layout, picture, image, three_digits)
        axes.set_title(name, fontsize=9)
    colour_bar(canvas, image, panels, "reward (reward units)")
    text = (
        "What a cell pays: for acting there, plus on arrival there from another cell, each on "
        "average over actions. Blue is above zero, red below, white zero."
    )
    if any((x == -torch.inf).any() for x in paid.values()):
        text += " Empty where every action is forbidden."
    if any(getattr(x, "unidentified", ()) for x in given.values()):
        text += " The data do not determine all of it: see what is not identified in the estimates."
    return captioned(canvas, text)


def _shares(row: Row) -> dict[str, Tensor]:
    """The share of all steps alive, s_0 … s_T or for ever, in each state: as imagined, and real."""
    assert row.evaluation.states is not None
    states = {"real": row.evaluation.states}
    if row.belief is not None and row.belief.optimism != 0:
        imagined = row.belief.imagined_states()
        states = states if imagined is None else {"imagined": imagined} | states
    visits = {what: x.sum(0) if x.dim() == 2 else x for what, x in states.items()}
    return {what: x / x.sum().clamp(min=1e-300) for what, x in visits.items()}


def _maps(shares: dict[str, dict[str, Tensor]], layout: Layout) -> Figure:
    pictures = {
        (name, what): on_map(layout, both[what])
        for what in _COLOURS
        for name, both in shares.items()
        if what in both
    }
    top = max(np.nanmax(picture) for picture in pictures.values())
    canvas, panels = map_figure(len(pictures), layout, bar=True)
    for axes, ((name, what), picture) in zip(panels, pictures.items(), strict=True):
        image = paint(axes, layout, picture, SHARES, PowerNorm(0.5, 0.0, top))
        write_numbers(axes, layout, picture, image, _percent)
        axes.set_title(f"{name}\n{what}", fontsize=9, color=lettering(_COLOURS[what]))
    bar = colour_bar(canvas, image, panels, "share of time (%)")
    ticks = [x for x in _TICKS if x <= top]
    bar.set_ticks(ticks, labels=[f"{100 * x:g}" for x in ticks])
    text = (
        "Numbers: percent of all steps spent in each cell, none below 0.05. Colours are on a "
        "scale of square roots."
    )
    if any("imagined" in both for both in shares.values()):
        text += " Imagined and real differ where a method changes the start or the dynamics."
    return captioned(canvas, text)


def _percent(share: float) -> str:
    """A share in percent, in at most two digits."""
    return "" if share < 5e-4 else "<1" if share < 0.005 else f"{100 * share:.0f}"


def _bars(shares: dict[str, dict[str, Tensor]], table: Table) -> Figure:
    canvas, panels = figure(len(shares), height=3.4)
    x = np.arange(table.num_states)
    for axes, (name, both) in zip(panels, shares.items(), strict=True):
        for k, (what, share) in enumerate(both.items()):
            shift = (k - (len(both) - 1) / 2) * 0.4
            look: dict[str, Any] = {"facecolor": _COLOURS[what], "edgecolor": "white", "lw": 0}
            look["hatch"] = "////" if what == "imagined" else ""  # for readers of grey prints
            axes.bar(x + shift, share.numpy(), 0.4, label=what, **look)
        axes.set_title(name, fontsize=9)
        axes.legend(frameon=False, fontsize=8)
        state_ticks(axes, table)
    panels[0].set_ylabel("share of time")
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0, top)
    text = "The share of all steps spent in each state."
    if any("imagined" in both for both in shares.values()):
        text += " Orange, hatched: as the method imagines it, under its own dynamics."
    text += " Blue: under its policy in the true dynamics."
    if table.layout is None or table.layout.states is None:
        text += (
            " States are numbered: a model with layout=cai.Layout(states=…) has names for them, "
            "one with cai.Layout(map=…, cells=…) is drawn as a map."
        )
    return captioned(canvas, text)


def _pays(where: str, reward: Any, model: TrajectoryModel | Table) -> Tensor:
    """(S,), what is paid for acting in each state and on arrival there, reward units."""
    states = enumerated(model).num_states
    if isinstance(reward, Tensor):
        if reward.shape != (states,):
            came = f"shape {list(reward.shape)}"
            checks.refuse(where, f"a number for each of {states} states", came, "see reward_map()")
        return reward.double()
    holder = getattr(reward, "model", reward)  # of a fit
    if not isinstance(holder, TrajectoryModel | Table):
        maker = "inference.fit_reward, a cai.LinearReward with weights or a model"
        check_drawn(where, reward, ("on", "weights"), maker)
        if reward.weights is None:
            advice = "inference.fit_reward finds them, reward.weighted([…]) gives them"
            checks.refuse(where, "a reward with weights", "one without", advice)
        features = reward.on(enumerated(model))
        weights = torch.tensor([reward.weights[x] for x in features.names], dtype=torch.float64)
        holder = features.rewards(enumerated(model), weights)
    found = state_rewards(enumerated(holder))
    if len(found) != states:
        checks.refuse(where, f"one of a model of {states} states", f"{len(found)} states", "")
    return found

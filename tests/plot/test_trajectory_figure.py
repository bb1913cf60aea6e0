"""The figure of trajectories over the reward's level curves, read back from matplotlib."""

import dataclasses

import numpy as np
import pyro.distributions as dist
import pytest
import torch

from cai import models, plot
from cai.plot.trajectory_figure import resting


def push(x, y):
    """A policy that always does the same, but for a deviation of 1e-3."""
    return lambda t, s: dist.Normal(torch.tensor([x, y]).double(), 1e-3).to_event(1)


def plane(**changes):
    return dataclasses.replace(
        models.multigoal(**changes),
        action_prior=dist.Normal(torch.zeros(2).double(), 1.0).to_event(1),
    )


def drawn(*arguments, **options):
    figure = plot.trajectories(*arguments, **options)
    figure.canvas.draw()
    return figure, [axes for axes in figure.axes if axes.get_title()]


def test_lines_are_the_trajectories_and_dots_their_ends():
    model, policies = plane(horizon=4), {"east": push(0.5, 0.0), "north": push(0.0, 0.5)}
    figure, panels = drawn(model, policies, samples=5, labels=("x (m)", "y (m)"), seed=3)
    assert [axes.get_title() for axes in panels] == ["east", "north"]
    for axes, policy in zip(panels, policies.values(), strict=True):
        states = model.simulate(policy, 5, seed=3).states.numpy()
        for line, path in zip(axes.get_lines(), states, strict=True):
            np.testing.assert_allclose(np.stack(line.get_data(), 1), path)
        start, end = (c for c in axes.collections if c.get_label() in ("start", "end"))
        np.testing.assert_allclose(start.get_offsets(), states[:, 0])
        np.testing.assert_allclose(end.get_offsets(), states[:, -1])
        assert start.get_facecolor().sum() - end.get_facecolor().sum() > 2  # white, and black
        assert axes.get_xlabel() == "x (m)"
    assert panels[0].get_ylabel() == "y (m)"
    (legend,) = figure.legends  # outside, where it hides nothing
    assert [text.get_text() for text in legend.get_texts()] == ["start", "end"]
    assert "5 trajectories of 4 steps" in figure.get_supxlabel()
    assert figure.axes[-1].get_ylabel() == "reward of a step (reward units)"


def test_panels_share_what_they_show_and_hold_every_state():
    model = plane(horizon=6)
    _, panels = drawn(model, {"east": push(0.5, 0.0), "north": push(0.0, 0.5)}, samples=3)
    assert panels[0].get_xlim() == panels[1].get_xlim()
    assert panels[0].get_ylim() == panels[1].get_ylim()
    for axes in panels:
        x, y = (np.stack([line.get_data()[i] for line in axes.get_lines()]) for i in (0, 1))
        assert axes.get_xlim()[0] < x.min() <= x.max() < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < y.min() <= y.max() < axes.get_ylim()[1]


def test_level_curves_are_of_the_reward_at_rest():
    """By hand: the pendulum pays for angle and speed, a point far from goals for its distance."""
    x, y = torch.tensor([-1.0, 0.0, 2.0]).double(), torch.tensor([0.0, 3.0]).double()
    paid = resting(models.pendulum(temperature=0.3), (0, 1), x, y, torch.zeros(2))
    expected = -(x**2 + 0.1 * y.unsqueeze(-1) ** 2)
    torch.testing.assert_close(paid, expected)
    paid = resting(models.multigoal(), (0, 1), x, y, torch.zeros(2))
    goals = torch.tensor([[5.0, 0], [-5, 0], [0, 5], [0, -5]]).double()
    s = torch.stack([x.expand(2, 3), y.unsqueeze(-1).expand(2, 3)], -1)
    torch.testing.assert_close(paid, -(s.unsqueeze(-2) - goals).square().sum(-1).amin(-1))


def test_coordinates_that_are_not_drawn_stay():
    model = models.cartpole(continuous=True)
    x, y = torch.tensor([0.0, 0.1]).double(), torch.tensor([0.0, 5.0]).double()
    paid = resting(model, (2, 0), x, y, torch.zeros(4))
    assert paid.shape == (2, 2)
    s = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0.1, 0], [5, 0, 0, 0], [5, 0, 0.1, 0]]).double()
    a = torch.zeros(4, 1).double()
    alone = model.log_factor(s, a, s) * model.temperature
    torch.testing.assert_close(paid.flatten(), alone)


def test_finitely_many_actions_are_averaged():
    """A cart that is pushed left or right, where a push to the left costs 2 and is rare."""
    cart = dataclasses.replace(
        models.cartpole(horizon=2),
        reward=lambda s, a: -s[..., 0].abs() - 2.0 * (a == 0),
        action_prior=dist.Categorical(torch.tensor([0.25, 0.75])),
    )
    x, y = torch.tensor([-1.0, 0.5]), torch.tensor([0.0])
    found = resting(cart, (0, 1), x, y, torch.zeros(4))
    torch.testing.assert_close(found, torch.tensor([[-1.5, -1.0]]).double())
    _, panels = drawn(cart, {"prior": lambda t, s: cart.prior(s)}, samples=2)
    assert len(panels[0].get_lines()) == 2


def test_a_reward_of_one_level_has_no_curves():
    model = dataclasses.replace(plane(horizon=2), reward=-1.0, arrival_reward=None)
    figure, _ = drawn(model, {"east": push(0.5, 0.0)}, samples=2)
    assert len(figure.axes) == 1  # no scale of colours


@pytest.mark.parametrize(
    ("model", "policies", "options", "message"),
    [
        (plane(), {}, {}, "policies: expected at least one"),
        (plane(), push(0, 0), {}, "policies: expected a dict, title of the panel -> policy"),
        (plane(), {"x": push(0, 0)}, {"coordinates": (0, 2)}, "two of 0 … 1, got"),
        (plane(), {"x": push(0, 0)}, {"coordinates": (1, 1)}, "two of 0 … 1, got"),
        (models.ledge(), {"x": push(0, 0)}, {}, "plot.occupancy and"),
        (plane(), {"x": push(0, 0)}, {"samples": 0}, "samples: expected"),
    ],
)
def test_errors_say_what_to_try(model, policies, options, message):
    with pytest.raises(ValueError, match=message):
        plot.trajectories(model, policies, **options)

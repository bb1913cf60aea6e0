"""What each cell of a map pays, move by move in a loop, and read back from matplotlib."""

import dataclasses
import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models, plot
from cai.tables.state_rewards import state_rewards

MAP = ["S.P", "#.G"]


def world(**options):
    return models.gridworld(MAP, **{"horizon": 4, "slip": 0.3, "pit_reward": -5.0} | options)


def paid_in_a_loop(table):
    """What is paid in each state, move by move, from the formula in words."""
    P = table.dense(table.log_dynamics)
    lists = table.successors
    S, A, _ = P.shape
    found = []
    for s in range(S):
        p = table.log_prior[s].exp()
        ways = [(float(p[a]), float(table.reward[s, a])) for a in range(A)]
        ways = [(x, r) for x, r in ways if r > -math.inf and x > 0]
        weight = sum(x for x, _ in ways)
        total = sum(x * r for x, r in ways) / weight if ways else -math.inf
        into = []
        for o in set(range(S)) - {s}:
            for a in range(A):
                allowed = float(table.log_prior[o, a].exp()) * (table.reward[o, a] > -math.inf)
                for k in range(table.log_dynamics.shape[-1]):
                    if (k if lists is None else int(lists[o, a, k])) == s:
                        w = allowed * float(table.log_dynamics[o, a, k].exp())
                        into += [(w, float(table.arrival_reward[o, a, k]))] if w else []
        if into:
            total += sum(w * r for w, r in into) / sum(w for w, _ in into)
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


def test_what_a_state_pays_move_by_move():
    rng = torch.Generator().manual_seed(0)
    P = torch.rand(4, 3, 4, generator=rng, dtype=torch.float64)
    reward = torch.randn(4, 3, generator=rng, dtype=torch.float64)
    reward[1, 2] = reward[2] = -torch.inf
    arrival = torch.randn(4, 3, 4, generator=rng, dtype=torch.float64)
    prior = torch.rand(4, 3, generator=rng, dtype=torch.float64)
    model = models.tabular(
        P / P.sum(-1, keepdim=True),
        reward,
        arrival_reward=arrival,
        action_prior=prior / prior.sum(-1, keepdim=True),
        horizon=3,
    )
    table = cai.tabulate(model)
    torch.testing.assert_close(state_rewards(table), paid_in_a_loop(table))
    lists = cai.tabulate(models.gym("FrozenLake-v1", horizon=3))
    torch.testing.assert_close(state_rewards(lists), paid_in_a_loop(lists))
    changing = table.holding(reward=torch.stack([reward, reward + 2.0, reward + 4.0]))
    torch.testing.assert_close(state_rewards(changing), state_rewards(table) + 2.0)


def drawn(figure):
    """The picture of each panel, its limits of colour, and its numbers by cell."""
    figure.canvas.draw()
    found = []
    for axes in figure.axes[:-1]:
        (image,) = axes.images
        texts = {(round(x.get_position()[1]), x.get_position()[0]): x for x in axes.texts}
        found.append((image.get_array().filled(np.nan), image.get_clim(), texts))
    return found


def test_cells_hold_what_a_reward_and_a_model_pay():
    model = world()
    paid = cai.LinearReward(
        {"step": lambda s, a: s < 2}, arrival={"pit": lambda s, a, n: (n == 2) & (s != 2)}
    ).weighted([-0.25, 2.0])
    figure = plot.reward_map({"true": model, "found": paid}, model)
    (true, limits, _), (found, other, texts) = drawn(figure)
    assert limits == other == (-5.0, 5.0)
    np.testing.assert_allclose(true, [[-1, -1, -5], [np.nan, -1, 0]])
    np.testing.assert_allclose(found, [[-0.25, -0.25, 2], [np.nan, 0, 0]])
    assert texts[0, 2].get_text() == "2"
    assert texts[1, 2].get_text() == "0"
    assert (1, 0) not in texts
    assert [axes.get_title() for axes in figure.axes[:2]] == ["true", "found"]
    assert figure.axes[-1].get_ylabel() == "reward (reward units)"
    (same, _, _), _ = drawn(plot.reward_map({"a": model, "b": paid}, cai.tabulate(model)))
    np.testing.assert_allclose(same, true)


def test_a_fit_is_drawn_as_it_was_found_and_says_what_is_open():
    model = world()
    seen = cai.Demonstrations.from_trajectories(model.simulate(model.prior, 50, seed=0))
    reward = cai.LinearReward({"step": lambda s, a: s < 5, "left": lambda s, a: a == 3})
    fitted = inference.fit_reward(model, seen, reward)
    figure = plot.reward_map(fitted, model)
    ((picture, _, _),) = drawn(figure)
    cells = torch.tensor(model.layout.cells)
    expected = fitted.weights["step"] + fitted.weights["left"] / 4  # one of four actions
    np.testing.assert_allclose(picture[tuple(cells.T)], expected)
    assert fitted.unidentified
    assert "The data do not determine all of it" in " ".join(figure.get_supxlabel().split())


def test_states_on_one_cell_are_averaged_and_what_is_forbidden_has_no_number():
    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(3)),
        dynamics=lambda s, a: dist.Delta(s),
        reward=lambda s, a: torch.tensor([1.0, 3.0, -torch.inf])[s],
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=2,
        layout=cai.Layout(map=("..",), cells=((0, 0), (0, 0), (0, 1))),
    )
    figure = plot.reward_map(model, model)
    ((picture, limits, texts),) = drawn(figure)
    np.testing.assert_equal(picture, [[2.0, math.nan]])
    assert "Empty where every action is forbidden" in figure.get_supxlabel()
    assert limits == (-2.0, 2.0)
    assert list(texts) == [(0, 0)]
    nothing = dataclasses.replace(model, reward=0.0)
    ((picture, limits, _),) = drawn(plot.reward_map(nothing, model))
    assert limits == (-1.0, 1.0)


def test_what_has_no_map_or_no_reward_is_refused():
    model = world()
    unweighted = cai.LinearReward({"step": lambda s, a: s < 2})
    with pytest.raises(ValueError, match="model: expected a model on a map"):
        plot.reward_map(unweighted.weighted([1.0]), models.ledge())
    with pytest.raises(ValueError, match="rewards: expected at least one"):
        plot.reward_map({}, model)
    with pytest.raises(ValueError, match=r"rewards\['a'\]: expected a result of inference"):
        plot.reward_map({"a": 3}, model)
    with pytest.raises(ValueError, match="expected a reward with weights, got one without"):
        plot.reward_map(unweighted, model)
    other = models.gridworld(["S..G"], horizon=2)
    with pytest.raises(ValueError, match="expected one of a model of 5 states, got 4 states"):
        plot.reward_map(other, model)


def test_the_mean_and_the_spread_of_a_posterior_are_drawn_side_by_side():
    model = world()
    seen = cai.Demonstrations.from_trajectories(model.simulate(model.prior, 50, seed=0))
    reward = cai.LinearReward({"step": lambda s, a: s < 5, "left": lambda s, a: a == 3})
    prior = torch.distributions.Normal(0.0, 1.0)
    found = inference.reward_posterior(model, seen, reward, prior, samples=50, progress=False)
    figure = plot.reward_map(found.reward_map(), model)
    mean, spread = (picture for picture, _, _ in drawn(figure))
    (alone,) = (picture for picture, _, _ in drawn(plot.reward_map(found, model)))
    np.testing.assert_allclose(mean, alone)
    cells = torch.tensor(model.layout.cells)
    expected = found.weights["step"] + found.weights["left"] / 4  # one of four actions
    np.testing.assert_allclose(mean[tuple(cells.T)], expected)
    a, b = found.covariance
    sd = float(a[0] + b[1] / 16 + 2 * a[1] / 4) ** 0.5
    np.testing.assert_allclose(spread[tuple(cells.T)], sd)
    with pytest.raises(ValueError, match=r"expected a number for each of 5 states"):
        plot.reward_map({"a": torch.zeros(4)}, model)

"""Figures, read back from matplotlib: numbers, units, captions, and arrows."""

import io
import itertools
import math
import re
from collections import Counter

import matplotlib.colors
import matplotlib.pyplot
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.container import BarContainer
from matplotlib.patches import FancyArrowPatch
from matplotlib.quiver import Quiver

import cai
from cai import graph, inference, models, plot
from cai.drawing.palette import IMAGINED, REAL, REFERENCE, UNSEEN, contrast, lettering

WALLED = ("S.#G", "..P.", "#...")
REACH = 0.46  # of a cell, the length of the arrow of the likeliest move


def lake():
    return models.gym("FrozenLake-v1", horizon=8, temperature=0.05)


def short_walk_on_the_lake():
    """Too short to come to every cell, but not to prefer an action beside the goal."""
    return models.gym("FrozenLake-v1", horizon=3, temperature=0.05)


def grid():
    return models.gridworld(
        WALLED, horizon=6, temperature=2.0, slip=0.2, wind=0.1, pit_reward=-5.0, discount=0.95
    )


def shared():
    """Three states on two cells, and an action that does not move: stay, or go right.

    From state 0 going right leads to state 1 or 2, which lie on one cell; state 2 absorbs, state 1
    may go back.
    """
    P = [
        [[1.0, 0.0, 0.0], [0.0, 0.4, 0.6]],
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
        [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]],
    ]
    return models.tabular(
        P,
        [[-1.0, -2.0], [-0.5, 0.0], [0.0, 0.0]],
        horizon=5,
        temperature=0.5,
        layout=cai.Layout(
            actions=("stay", "right"),
            map=("S.",),
            cells=((0, 0), (0, 1), (0, 1)),
            moves=((0, 0), (0, 1)),
        ),
    )


def cliff_of_minus_infinity(layout=None):
    """From state 0 half of all steps lead where the reward is -inf; one step later all is safe."""
    return models.tabular(
        [
            [[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]],
            [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]],
            [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]],
        ],
        [[0.0, -1.0], [-math.inf, -math.inf], [-1.0, 0.0]],
        horizon=2,
        layout=layout,
    )


MAP_OF_THREE = cai.Layout(
    map=("SPG",), cells=((0, 0), (0, 1), (0, 2)), moves=((0, 1), (0, -1)), actions=("r", "l")
)


def continuous():
    return cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1),
        reward=lambda s, a: -(s**2),
        action_prior=dist.Normal(0.0, 1.0),
        horizon=2,
    )


def compared(model):
    return cai.compare(
        model,
        {
            "exact posterior": inference.posterior(model),
            "fixed dynamics": inference.soft_values(model),
            "prior": lambda t, s: model.prior(s),
        },
    )


def compared_by_simulation():
    model = continuous()
    return cai.compare(
        model, {"prior": lambda t, s: model.prior(s), "still": lambda t, s: dist.Normal(-s, 0.5)}
    )


MODELS = {"ledge": models.ledge, "lake": lake, "grid": grid, "shared": shared}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def caption(figure):
    return " ".join(figure.get_supxlabel().split())


def bars(axes):
    """{label: its bars}, of the containers that are drawn as bars."""
    return {c.get_label(): c.patches for c in axes.containers if isinstance(c, BarContainer)}


def heights(patches):
    return [patch.get_height() for patch in patches]


def widths(patches):
    return [patch.get_width() for patch in patches]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def picture(axes):
    (image,) = axes.images
    return np.ma.filled(np.ma.masked_invalid(image.get_array()), np.nan).astype(float)


def on_the_map(model, values, combine):
    """(rows, columns): the values of the states in their cells, nan where there is no state."""
    layout = model.layout
    found = np.full((len(layout.map), len(layout.map[0])), np.nan)
    for cell, value in zip(layout.cells, values.tolist(), strict=True):
        found[cell] = value if np.isnan(found[cell]) else combine(found[cell], value)
    return found


def panels(figure):
    """The axes that are no colour bar."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def assert_saves(figure):
    """Drawing it raises nothing, and no warning, and gives a picture that is not blank."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    file.seek(0)
    assert matplotlib.pyplot.imread(file)[..., :3].std() > 0.01


# What holds for every figure


def every_figure():
    """(name, figure, what its axes must say) of all figures of all models."""
    for name, build in MODELS.items():
        model = build()
        report = compared(model)
        mapped = model.layout.map is not None
        yield f"{name}: comparison", plot.comparison(report), ["(nats)", "(reward units)"]
        yield f"{name}: occupancy", plot.occupancy(report), ["share of time"]
        yield f"{name}: optimism", plot.optimism(model), ["optimism (nats)"]
        words = [] if mapped else ["probability of the action"]
        yield f"{name}: policies", plot.policies(report), words
        yield f"{name}: graphical model", plot.graphical_model(model), []
    fitted = inference.fit(models.lottery(horizon=1), cai.TabularPolicy(models.lottery(horizon=1)))
    yield "losses", plot.losses(fitted), ["step", "ELBO (nats)"]
    yield "simulated", plot.comparison(compared_by_simulation()), ["(nats)", "(reward units)"]


def test_every_figure_has_units_and_a_caption():
    for name, figure, words in every_figure():
        assert len(caption(figure).split()) >= 8, name
        labels = " ".join(f"{axes.get_xlabel()} {axes.get_ylabel()}" for axes in figure.axes)
        for word in words:
            assert word in labels, name
        assert_saves(figure)
    assert matplotlib.pyplot.get_fignums() == []  # figures belong to the caller, not to pyplot


@pytest.mark.parametrize("build", [models.ledge, lake])
def test_a_caption_fits_into_its_figure(build):
    model = build()
    report = compared(model)
    for figure in (plot.comparison(report), plot.occupancy(report), plot.optimism(model)):
        figure.draw_without_rendering()
        box = figure._supxlabel.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width


# comparison


def marks(axes):
    """{label: (x, y)} of rings and dots."""
    return {line.get_label(): line.get_data() for line in axes.lines if line.get_marker() == "o"}


def numbers(axes):
    """{row: {colour: the number that is written there}}"""
    found = {}
    for text in axes.texts:
        of_row = found.setdefault(round(text.xy[1]), {})
        assert text.get_color() not in of_row
        of_row[text.get_color()] = float(text.get_text().replace("−", "-").replace("∞", "inf"))
    return found


def test_comparison_draws_the_numbers_of_the_report(model):
    report = compared(model)
    figure = plot.comparison(report)
    bounds, returns, split = figure.axes
    rows = list(report.values())
    for axes, imagined, real in (
        (bounds, "imagined_bound", "elbo"),
        (returns, "imagined_return", "expected_return"),
    ):
        drawn = marks(axes)
        assert drawn["imagined"][0].tolist() == [getattr(row, imagined) for row in rows]
        assert drawn["real"][0].tolist() == [getattr(row, real) for row in rows]
        for k, row in enumerate(rows):
            written = numbers(axes)[k]
            assert written[lettering(REAL)] == pytest.approx(
                getattr(row, real), rel=5e-3, abs=1e-12
            )
            if k:  # the others imagine what they get: one number for both
                assert list(written) == [lettering(REAL)]
            elif lettering(IMAGINED) in written:
                assert written[lettering(IMAGINED)] == pytest.approx(
                    getattr(row, imagined), rel=5e-3
                )
    assert lettering(IMAGINED) in numbers(bounds)[0]
    assert "nats" in bounds.get_xlabel()
    assert "reward units" in returns.get_xlabel()
    assert split.get_xlabel() == "KL to the exact posterior (nats)"
    for axes in figure.axes:
        assert axes.yaxis_inverted()  # the first method on top
    assert ticks(bounds.yaxis) == list(report)
    assert {text.get_text() for text in bounds.get_legend().get_texts()} == {"imagined", "real"}


def test_comparison_puts_each_mark_beside_its_name_and_leaves_room_for_numbers(model):
    figure = plot.comparison(compared(model))
    figure.draw_without_rendering()
    for axes in figure.axes[:2]:
        for x, y in marks(axes).values():
            assert y.tolist() == axes.get_yticks().tolist()
            assert axes.get_xlim()[0] < min(x) <= max(x) < axes.get_xlim()[1]
    for axes in figure.axes:
        for text in axes.texts:
            assert text.get_window_extent().x1 <= figure.bbox.x1
    legends = [axes.get_legend().get_window_extent() for axes in figure.axes[::2]]
    for axes, legend in zip(figure.axes[::2], legends, strict=True):
        assert legend.x1 <= axes.bbox.x1 + 1


def test_a_longer_line_is_never_a_worse_method():
    """ELBOs are below zero here; the better method lies further right."""
    report = compared(models.ledge())
    x = marks(plot.comparison(report).axes[0])["real"][0]
    assert max(x) < 0
    assert x[1] > x[0]


def test_comparison_stacks_the_parts_of_the_divergence(model):
    report = compared(model)
    split = plot.comparison(report).axes[2]
    left = np.zeros(len(report))
    assert len({bars(split)[part][0].get_facecolor() for part in bars(split)}) == 3
    for part in ("start", "actions", "dynamics"):
        patches = bars(split)[part]
        assert np.allclose([patch.get_x() for patch in patches], left, atol=1e-12)
        assert widths(patches) == [getattr(row, f"kl_{part}") for row in report.values()]
        left += widths(patches)
    kl = [row.kl for row in report.values()]
    assert np.allclose(left, kl, atol=1e-12)
    written = [next(iter(row.values())) for row in numbers(split).values()]
    assert written == pytest.approx(kl, rel=5e-3, abs=1e-12)


def test_comparison_without_a_posterior_has_a_bracket_and_standard_errors():
    report = compared_by_simulation()
    figure = plot.comparison(report)
    bounds, returns, between = figure.axes
    assert "out of reach" in caption(figure)
    assert list(bars(between)) == ["at least", "estimate, no bound"]
    least, rest = bars(between).values()
    assert widths(least) == [row.kl_lower for row in report.values()]
    ends = [patch.get_x() + patch.get_width() for patch in rest]
    assert ends == pytest.approx([row.kl_upper for row in report.values()])
    rows = list(report.values())
    for axes, field in ((bounds, "elbo"), (returns, "expected_return")):
        assert marks(axes)["real"][0].tolist() == [getattr(row, field) for row in rows]
        (whiskers,) = axes.containers[-1].lines[2]
        for segment, row in zip(whiskers.get_segments(), rows, strict=True):
            middle, error = getattr(row, field), getattr(row, f"{field}_stderr")
            assert error > 0
            assert segment[:, 0] == pytest.approx([middle - error, middle + error])


def test_comparison_survives_infinities():
    model = cliff_of_minus_infinity()
    report = compared(model)
    assert report["fixed dynamics"].elbo == -math.inf
    figure = plot.comparison(report)
    for patches in bars(figure.axes[2]).values():
        assert np.isfinite(widths(patches)).all()
    imagined, real = marks(figure.axes[0]).values()
    assert imagined[0][0] == report["exact posterior"].imagined_bound
    assert np.isnan(real[0][1])  # no mark, but a number
    assert numbers(figure.axes[0])[1][lettering(REAL)] == -math.inf
    assert np.isfinite(figure.axes[0].get_xlim()).all()
    assert_saves(figure)


# occupancy


def shares(states):
    """The share of all steps alive that is spent in each state."""
    return states.sum(0) / states.sum()


def test_occupancy_as_bars():
    report = compared(models.ledge())
    figure = plot.occupancy(report)
    assert [axes.get_title() for axes in figure.axes] == list(report)
    for axes, row in zip(figure.axes, report.values(), strict=True):
        drawn = bars(axes)
        assert heights(drawn["real"]) == pytest.approx(shares(row.evaluation.states).tolist())
        assert sum(heights(drawn["real"])) == pytest.approx(1)
        assert ticks(axes.xaxis) == list(models.ledge().layout.states)
    exact = report["exact posterior"]
    imagined = heights(bars(figure.axes[0])["imagined"])
    assert imagined == pytest.approx(shares(exact.method.states).tolist())
    assert imagined[4] < heights(bars(figure.axes[0])["real"])[4]  # luck: no ravine
    for axes in figure.axes[1:]:
        assert list(bars(axes)) == ["real"]
    looks = [(x[0].get_facecolor(), x[0].get_hatch()) for x in bars(figure.axes[0]).values()]
    assert looks[0][0] != looks[1][0]
    assert looks[0][1] != looks[1][1]  # in a print without colours, too
    assert len({axes.get_ylim() for axes in figure.axes}) == 1  # comparable at a glance
    assert figure.axes[0].get_ylabel() == "share of time"


def test_occupancy_as_bars_stands_side_by_side():
    figure = plot.occupancy(compared(models.ledge()))
    drawn = bars(figure.axes[0])
    for k, (imagined, real) in enumerate(zip(drawn["imagined"], drawn["real"], strict=True)):
        assert imagined.get_x() + imagined.get_width() == pytest.approx(k)
        assert real.get_x() == pytest.approx(k)


@pytest.mark.parametrize("build", [lake, grid, shared])
def test_occupancy_on_a_map(build):
    model = build()
    report = compared(model)
    figure = plot.occupancy(report)
    pictures = {axes.get_title(): axes for axes in panels(figure)}
    expected = {"exact posterior\nimagined": report["exact posterior"].method.states}
    expected |= {f"{name}\nreal": row.evaluation.states for name, row in report.items()}
    assert list(pictures) == list(expected)
    limits = set()
    for title, states in expected.items():
        found = picture(pictures[title])
        assert np.allclose(found, on_the_map(model, shares(states), np.add), equal_nan=True)
        assert np.nansum(found) == pytest.approx(1)
        limits.add(pictures[title].images[0].get_clim())
        written = [x.get_text() for x in pictures[title].texts if x.get_text() not in set("SGPFH")]
        assert written == [in_percent(x) for x in found[np.isfinite(found)]]
    ((low, high),) = limits  # one scale of colours for all
    assert low == 0
    assert high == max(np.nanmax(picture(axes)) for axes in pictures.values())
    (bar,) = (axes for axes in figure.axes if axes.get_label() == "<colorbar>")
    assert bar.get_ylabel() == "share of time (%)"
    for place, label in zip(bar.get_yticks(), ticks(bar.yaxis), strict=True):
        assert float(label) == pytest.approx(100 * place)


def in_percent(x):
    return f"{100 * x:.0f}" if x >= 0.005 else "<1" if x >= 0.0005 else ""


def test_seldom_visited_cells_differ_from_those_that_never_are():
    """On the scale of roots 1% is a tenth of the way to black."""
    image = panels(plot.occupancy(compared(lake())))[0].images[0]
    assert image.norm(0.01 * image.norm.vmax) == pytest.approx(0.1)


def test_states_without_names_say_how_to_give_a_layout():
    base = endless()
    unnamed = cai.compare(base, {"best": inference.soft_values(base)})
    assert "layout=cai.Layout(states=…)" in caption(plot.occupancy(unnamed))
    assert "Layout" not in caption(plot.occupancy(compared(models.ledge())))


def test_a_map_shows_its_letters_and_walls():
    model = grid()
    for axes in panels(plot.occupancy(compared(model))):
        found = picture(axes)
        for i, row in enumerate(WALLED):
            for j, letter in enumerate(row):
                assert np.isnan(found[i, j]) == (letter == "#")
        letters = {t.get_text(): t.get_position() for t in axes.texts if t.get_text().isalpha()}
        assert set(letters) == {"S", "G", "P"}
        for letter, (i, j) in {"S": (0, 0), "G": (0, 3), "P": (1, 2)}.items():
            x, y = letters[letter]
            assert (round(y), round(x)) == (i, j)
        (walls,) = (c for c in axes.collections if isinstance(c, PatchCollection))
        assert walls.get_hatch()
        corners = sorted(tuple(wall.get_extents().min) for wall in walls.get_paths())
        assert np.allclose(corners, [(-0.5, 1.5), (1.5, -0.5)])


@pytest.mark.parametrize("draw", [lambda m: plot.occupancy(compared(m)), plot.optimism])
@pytest.mark.parametrize("build", [lake, grid, shared])
def test_text_on_a_map_is_legible(draw, build):
    """Letters and numbers against the colour of their cell."""
    for axes in panels(draw(build())):
        (image,) = axes.images
        found = picture(axes)
        assert axes.texts
        for text in axes.texts:
            x, y = text.get_position()
            value = found[round(y), round(x)]
            behind = image.cmap(image.norm(value))[:3] if np.isfinite(value) else "white"
            assert contrast(text.get_color(), behind) >= 4.5


def test_many_methods_wrap_into_rows_of_maps():
    model = lake()
    methods = {f"optimism {eta}": inference.soft_values(model, eta) for eta in (-1, 0.2, 0.5, 1)}
    figure = plot.occupancy(cai.compare(model, methods))
    titles = [axes.get_title() for axes in panels(figure)]
    assert sorted(titles) == sorted(
        f"{name}\n{what}" for name in methods for what in ("imagined", "real")
    )
    places = {axes.get_subplotspec().get_geometry()[2] for axes in panels(figure)}
    assert len(places) == len(titles)


# policies


def test_policies_as_bars():
    """The ledge: home and ravine absorb; the others as they are met, averaged over the steps."""
    model = models.ledge(temperature=2.0)
    report = compared(model)
    figure = plot.policies(report)
    assert [axes.get_title() for axes in figure.axes] == list(report)
    for axes, row in zip(figure.axes, report.values(), strict=True):
        visits = row.evaluation.state_actions.sum(0)[:3]
        policy = visits / visits.sum(-1, keepdim=True)
        drawn = bars(axes)
        assert list(drawn) == ["short cut", "path"]
        assert heights(drawn["short cut"]) == pytest.approx(policy[:, 0].tolist())
        assert heights(drawn["path"]) == pytest.approx(policy[:, 1].tolist())
        tops = [patch.get_y() + patch.get_height() for patch in drawn["path"]]
        assert tops == pytest.approx([1, 1, 1])
        assert [patch.get_y() for patch in drawn["path"]] == heights(drawn["short cut"])
        assert ticks(axes.xaxis) == ["start", "bend", "last bend"]
    assert figure.axes[0].get_ylabel() == "probability of the action"
    first = [heights(bars(axes)["short cut"])[0] for axes in figure.axes]
    assert first[0] > first[2] > first[1]  # hoping, at random, and knowing


def test_policies_of_states_that_are_never_met():
    """As at step 0: state 1 cannot be reached, and there the policy prefers action 1."""
    P = torch.eye(3)[:, None].repeat(1, 2, 1)
    P[1, 0] = P[1, 1] = torch.tensor([0.5, 0.0, 0.5])
    P[0, 1] = torch.tensor([0.0, 0.0, 1.0])
    model = models.tabular(P, [[0.0, 0.0], [0.0, 1.5], [0.0, 0.0]], horizon=3)
    report = compared(model)
    log_odds = report["fixed dynamics"].method.policy.log_probs[0, 1]
    axes = plot.policies(report).axes[1]
    assert ticks(axes.xaxis) == ["0", "1"]
    assert list(bars(axes)) == ["0", "1"]
    assert heights(bars(axes)["1"])[1] == pytest.approx(log_odds.exp()[1].item())
    assert log_odds[1] - log_odds[0] == pytest.approx(1.5)


def arrows(axes):
    """{cell: {(rows, columns): length in cells}} and the colours of the arrows of each cell."""
    lengths, colours = {}, {}
    (quiver,) = (c for c in axes.collections if isinstance(c, Quiver))
    assert (quiver.scale, quiver.scale_units, quiver.angles) == (1, "xy", "xy")  # as long as U, V
    columns = quiver.X, quiver.Y, quiver.U, quiver.V, quiver.get_facecolors()
    for x0, y0, x, y, colour in zip(*columns, strict=True):
        length = math.hypot(x, y)
        direction = round(y / length, 9), round(x / length, 9)
        cell = int(y0), int(x0)
        assert cell == (y0, x0)
        assert direction not in lengths.setdefault(cell, {})
        lengths[cell][direction] = length
        colours.setdefault(cell, set()).add(tuple(colour))
    return lengths, colours


def absorbing_by_hand(model):
    P = cai.tabulate(model)
    return P.dense(P.log_dynamics).diagonal(dim1=0, dim2=2).amin(0) == 1


@pytest.mark.parametrize("build", [lake, short_walk_on_the_lake, grid])
def test_arrows_are_as_long_as_their_action_is_probable_beside_the_likeliest(build):
    model = build()
    layout = model.layout
    report = compared(model)
    figure = plot.policies(report)
    assert [axes.get_title() for axes in figure.axes] == list(report)
    stays, unmet = absorbing_by_hand(model).tolist(), False
    for axes, row in zip(figure.axes, report.values(), strict=True):
        visits = row.evaluation.state_actions.sum(0)
        lengths, colours = arrows(axes)
        expected = {}
        for s, cell in enumerate(layout.cells):
            if stays[s]:
                continue
            met = bool(visits[s].sum() > 0)
            policy = visits[s] / visits[s].sum() if met else policy_at_start(model, row)[s]
            expected[cell] = {
                tuple(map(float, move)): REACH * p / policy.max().item()
                for move, p in zip(layout.moves, policy.tolist(), strict=True)
                if p >= 0.02
            }
            assert max(expected[cell].values()) == pytest.approx(REACH)
            assert colours[cell] == {matplotlib.colors.to_rgba(REFERENCE if met else UNSEEN)}
            unmet |= not met
        assert lengths.keys() == expected.keys()
        for cell, of_cell in expected.items():
            assert lengths[cell] == pytest.approx(of_cell, abs=1e-9)
    assert ("Grey: never visited" in caption(figure)) == unmet
    assert not figure.legends  # no dots


def policy_at_start(model, row):
    """(S, A): the policy at step 0, asked as any policy is."""
    S = cai.tabulate(model).num_states
    return getattr(row.method, "policy", row.method)(0, torch.arange(S)).probs.expand(S, -1)


def test_arrows_point_to_the_goal():
    """On a corridor the best policy is sure, and every step towards the goal is to the right."""
    model = models.gridworld(("S.G",), horizon=3, temperature=0.05, slip=0.0)
    (axes,) = plot.policies(cai.compare(model, {"best": inference.soft_values(model)})).axes
    lengths, _ = arrows(axes)
    assert lengths == {
        (0, 0): {(0.0, 1.0): pytest.approx(REACH, abs=1e-6)},
        (0, 1): {(0.0, 1.0): pytest.approx(REACH, abs=1e-6)},
    }


def test_states_on_one_cell_share_its_arrows():
    """Weighted by how often each is met; the absorbing one has no say, a dot is for staying."""
    model = shared()
    report = compared(model)
    figure = plot.policies(report)
    for axes, row in zip(figure.axes, report.values(), strict=True):
        visits = row.evaluation.state_actions.sum(0)
        policies = (visits / visits.sum(-1, keepdim=True))[:2].tolist()
        lengths, _ = arrows(axes)
        (cloud,) = (c for c in axes.collections if isinstance(c, PathCollection))
        places = [(int(y), int(x)) for x, y in cloud.get_offsets()]
        areas = dict(zip(places, cloud.get_sizes(), strict=True))
        assert lengths.keys() == areas.keys() == {(0, 0), (0, 1)}
        share = [(stay / max(stay, right), right / max(stay, right)) for stay, right in policies]
        for j, (stay, right) in enumerate(share):
            assert lengths[0, j] == {(0.0, 1.0): pytest.approx(REACH * right)}
            # The area of the dot grows with the probability.
            assert areas[0, j] / areas[0, 0] == pytest.approx(stay / share[0][0])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["stay"]


def test_actions_with_one_move_share_an_arrow():
    """Their probabilities add up, as those of the taxi's pick up and drop off in their dot."""
    P = torch.eye(2)[torch.tensor([[1, 1, 0], [1, 1, 1]])]
    layout = cai.Layout(
        map=("SG",), cells=((0, 0), (0, 1)), moves=((0, 1), (0, 1), (0, -1)), actions=tuple("abc")
    )
    model = models.tabular(P, torch.zeros(2, 3), horizon=1, layout=layout)
    (axes,) = plot.policies(cai.compare(model, {"prior": lambda t, s: model.prior(s)})).axes
    assert arrows(axes)[0] == {(0, 0): {(0.0, 1.0): REACH, (0.0, -1.0): pytest.approx(REACH / 2)}}


def test_two_moving_states_on_one_cell():
    """The mean of their policies by visits, not of their probabilities."""
    P = torch.zeros(3, 2, 3)
    P[0, :, 1], P[0, :, 2] = 0.25, 0.75
    P[1, :, 0] = P[2, :, 0] = 1.0
    layout = cai.Layout(
        map=("S.",), cells=((0, 0), (0, 1), (0, 1)), moves=((0, 1), (0, -1)), actions=("r", "l")
    )
    model = models.tabular(
        P, [[0.0, 0.0], [3.0, 0.0], [0.0, 0.0]], horizon=2, initial=[1.0, 0.0, 0.0], layout=layout
    )
    report = cai.compare(model, {"best": inference.soft_values(model)})
    (axes,) = plot.policies(report).axes
    right = 1 / (1 + math.exp(-3))
    lengths, _ = arrows(axes)
    likely = 0.25 * right + 0.75 * 0.5
    assert lengths[0, 1][0.0, 1.0] == pytest.approx(REACH)
    assert lengths[0, 1][0.0, -1.0] == pytest.approx(REACH * (1 - likely) / likely)


# optimism


def surplus(model):
    """(V^1 - V^0)/α at step 0, (S,), nats."""
    exact, fixed = inference.posterior(model), inference.soft_values(model)
    return (exact.V[0] - fixed.V[0]) / model.temperature


def test_optimism_as_bars():
    model = models.ledge(temperature=0.5)
    (axes,) = plot.optimism(model).axes
    (patches,) = bars(axes).values()
    assert heights(patches) == pytest.approx(surplus(model).tolist(), abs=1e-12)
    assert heights(patches)[0] > 1
    assert [patch.get_x() + patch.get_width() / 2 for patch in patches] == pytest.approx(range(5))
    assert ticks(axes.xaxis) == list(model.layout.states)


@pytest.mark.parametrize("build", [lake, grid, shared])
def test_optimism_on_a_map(build):
    """Where states share a cell, the most optimistic of them."""
    model = build()
    figure = plot.optimism(model)
    axes, bar = figure.axes
    assert bar.get_ylabel() == "optimism (nats)"
    expected = on_the_map(model, surplus(model), max)
    assert np.allclose(picture(axes), expected, equal_nan=True)
    assert np.nanmax(picture(axes)) > 0.1
    assert axes.images[0].get_clim()[0] == 0


@pytest.mark.parametrize("layout", [None, MAP_OF_THREE], ids=["bars", "map"])
def test_rounding_noise_is_no_optimism(layout):
    """Deterministic dynamics leave no room for luck; what is left is drawn as zero, and said."""
    P = torch.eye(3)[torch.tensor([[1, 0], [2, 0], [2, 2]])]
    reward = 0.1 * torch.tensor([[-1.0, -3.0], [-0.7, -1.1], [0.0, 0.0]])
    model = models.tabular(P, reward, horizon=40, temperature=0.3, layout=layout)
    noise = surplus(model).abs().max()
    assert noise < 1e-9
    figure = plot.optimism(model)
    axes = figure.axes[0]
    drawn = picture(axes) if layout else np.array(heights(axes.patches))
    assert (drawn == 0).all()
    assert "No optimism anywhere." in caption(figure)
    if layout:
        low, high = axes.images[0].get_clim()
        assert low == 0 < high
        assert {t.get_text() for t in axes.texts if not t.get_text().isalpha()} == {"0"}
    assert "No optimism" not in caption(plot.optimism(models.ledge()))


def test_optimism_of_two_gamblers_on_one_cell():
    """The larger is shown, and neither their sum nor the last."""
    P = torch.full((3, 1, 3), 1 / 3)
    layout = cai.Layout(map=("S.",), cells=((0, 0), (0, 1), (0, 1)), actions=("wait",))
    arrival = [[[-1.0, 0.0, 0.0]], [[-9.0, 0.0, 1.0]], [[-2.0, 0.0, 0.0]]]
    model = models.tabular(
        P, [[0.0], [0.0], [0.0]], horizon=1, arrival_reward=arrival, layout=layout
    )
    first, second, third = surplus(model).tolist()
    assert second > third > first > 0
    assert picture(plot.optimism(model).axes[0]).tolist() == [pytest.approx([first, second])]


@pytest.mark.parametrize("layout", [None, MAP_OF_THREE], ids=["bars", "map"])
def test_optimism_survives_infinities(layout):
    """State 0 is hopeless in the true dynamics; state 1 is a dead end for both: no optimism."""
    model = cliff_of_minus_infinity(layout)
    assert surplus(model)[0] == math.inf
    figure = plot.optimism(model)
    if layout is None:
        drawn = heights(next(iter(bars(figure.axes[0]).values())))
    else:
        drawn = picture(figure.axes[0])[0]
    assert np.isfinite(drawn).all()
    assert max(np.abs(drawn)) < 100
    assert drawn[1] == 0
    assert_saves(figure)


def test_optimism_where_every_state_is_infinitely_overrated():
    P = torch.tensor([[[0.5, 0.5]], [[0.5, 0.5]]])
    layout = cai.Layout(map=("SG",), cells=((0, 0), (0, 1)), moves=((0, 1),), actions=("r",))
    arrival = [[[-math.inf, 0.0]], [[-math.inf, 0.0]]]
    model = models.tabular(
        P, [[0.0], [0.0]], horizon=1, initial=[1.0, 1.0], arrival_reward=arrival, layout=layout
    )
    assert (surplus(model) == math.inf).all()
    figure = plot.optimism(model)
    assert np.isfinite(picture(figure.axes[0])).all()
    assert_saves(figure)


@pytest.mark.parametrize("layout", [None, MAP_OF_THREE], ids=["bars", "map"])
def test_the_other_figures_survive_infinities(layout):
    report = compared(cliff_of_minus_infinity(layout))
    for figure in (plot.occupancy(report), plot.policies(report)):
        assert len(panels(figure)) >= 3
        assert_saves(figure)


# losses


def fit_with(losses, estimator):
    return inference.Fit(torch.nn.Identity(), -3.0625, losses, estimator, True)


def test_losses_that_are_estimates_have_a_running_mean():
    losses = torch.linspace(5, 3, 200, dtype=torch.float64)
    fitted = fit_with(losses, "score")
    (axes,) = plot.losses(fitted, -2.5).axes
    lines = {line.get_label(): line for line in axes.lines}
    raw, mean, best = lines.values()
    names = ["ELBO estimate", "running mean of 50 steps", "the best with fixed dynamics"]
    assert list(lines) == names
    assert raw.get_linewidth() < mean.get_linewidth()
    assert np.array_equal(raw.get_ydata(), -losses.numpy())
    assert mean.get_ydata()[0] == -5
    assert mean.get_ydata()[-1] == pytest.approx(-losses[-50:].mean().item())
    assert len(mean.get_ydata()) == 200
    assert set(best.get_ydata()) == {-2.5}
    assert best.get_color() not in (IMAGINED, REAL)
    assert "−3.0625 nats" in caption(plot.losses(fitted, -2.5))
    assert "some may lie above the best ELBO" in caption(plot.losses(fitted))
    assert names[2] not in {line.get_label() for line in plot.losses(fitted).axes[0].lines}


@pytest.mark.parametrize("estimator", ["exact", "mirror"])
def test_exact_losses_are_drawn_as_they_are(estimator):
    """No running mean; a dot where the ELBO arrives, and its distance from the best."""
    losses = 3 + 2 * 0.5 ** torch.arange(200, dtype=torch.float64)
    figure = plot.losses(fit_with(losses, estimator), -3.0)
    axes, right = figure.axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["ELBO", "the best with fixed dynamics"]
    (dot,) = (line for line in axes.lines if line.get_marker() == "o")
    assert dot.get_xdata()[0] == 7  # 1/128 is the first power of ½ below 1%
    assert dot.get_ydata()[0] == -losses[7]
    assert "From step 7 (dot)" in caption(figure)
    (line,) = right.lines
    assert right.get_yscale() == "log"
    assert right.get_ylabel() == "below the best ELBO (nats)"
    np.testing.assert_allclose(line.get_ydata()[:30], losses[:30] - 3)
    assert_saves(figure)
    assert len(plot.losses(fit_with(losses, estimator)).axes) == 1
    assert (
        len(plot.losses(fit_with(losses, estimator), -4.0).axes) == 1
    )  # a bound of something else


def test_a_fit_that_has_not_arrived_has_no_dot():
    losses = torch.tensor([3.0, 3.0]).double()
    for short in (losses, losses[:1], torch.linspace(5, 3, 200).double()[:3]):
        (axes,) = plot.losses(fit_with(short, "exact")).axes
        assert not [line for line in axes.lines if line.get_marker() == "o"]


# graphical_model


def alive_and_final():
    """Every kind of node: latents, survival, a final reward."""
    base = models.gridworld(WALLED, horizon=2, slip=0.1, wind=0.2, discount=0.9)
    return cai.TrajectoryModel(
        initial=base.initial,
        dynamics=base.dynamics,
        reward=base.reward,
        action_prior=base.action_prior,
        horizon=2,
        discount=0.9,
        final_reward=lambda s: -1.0 * s,
    )


@pytest.mark.parametrize("build", [models.ledge, grid, alive_and_final, continuous])
def test_graphical_model_draws_every_node_and_edge(build):
    model = build()
    network = graph.graphical_model(model)
    figure = plot.graphical_model(model)
    (axes,) = figure.axes
    (nodes,) = axes.collections
    assert len(nodes.get_offsets()) == len(network)
    assert len({tuple(np.round(xy, 3)) for xy in nodes.get_offsets()}) == len(network)
    drawn = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(drawn) == network.number_of_edges()
    rims = Counter(np.round(nodes.get_linewidths(), 3).tolist())
    observed = sum(seen for _, seen in network.nodes(data="observed"))
    assert rims[max(rims)] == observed
    assert rims[min(rims)] == len(network) - observed
    colours = dict(zip(network, map(tuple, nodes.get_facecolors()), strict=True))
    kinds = {kind for _, kind in network.nodes(data="kind")}
    assert len(set(colours.values())) == len(kinds)  # a colour for each kind
    assert_saves(figure)


def five_latents():
    """Coins that are tossed at every step, more of them than there is room for side by side."""

    def dynamics(s, a):
        coins = [pyro.sample(name, dist.Bernoulli(0.5)) for name in "vwxyz"]
        return dist.Delta((s + a + sum(coins)).long() % 3)

    return cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(3)),
        dynamics=dynamics,
        reward=-1.0,
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=3,
    )


@pytest.mark.parametrize("build", [models.ledge, grid, alive_and_final, continuous, five_latents])
def test_graphical_model_keeps_its_nodes_apart(build):
    """No node covers another one, measured as they are drawn."""
    figure = plot.graphical_model(build())
    figure.draw_without_rendering()
    (axes,) = figure.axes
    (nodes,) = axes.collections
    places = axes.transData.transform(nodes.get_offsets())
    diameter = math.sqrt(nodes.get_sizes()[0]) * figure.dpi / 72
    for (x, y), (x0, y0) in itertools.combinations(places, 2):
        assert math.hypot(x - x0, y - y0) >= diameter


@pytest.mark.parametrize("build", [models.ledge, grid, alive_and_final, continuous])
def test_graphical_model_labels_every_node(build):
    model = build()
    found = [text.get_text() for text in plot.graphical_model(model).axes[0].texts]
    expected = []
    for node in graph.graphical_model(model):
        step, _, site = node.partition("/")
        name, step = (site, step[1:]) if site else node.rsplit("_", 1)
        name = name.replace("_", " ")
        expected.append(f"${name}_{{{step}}}$" if len(name) == 1 else f"{name}$_{{{step}}}$")
    assert sorted(found) == sorted(expected)


def test_graphical_model_has_one_rule_for_labels():
    """States, actions and optimality in their nodes, every other name below its node."""
    model = alive_and_final()
    (axes,) = plot.graphical_model(model).axes
    network = graph.graphical_model(model)
    nodes = dict(zip(network, axes.collections[0].get_offsets(), strict=True))
    for (node, (x, y)), text in zip(nodes.items(), axes.texts, strict=True):
        inside = network.nodes[node]["kind"] in ("state", "action", "optimality")
        x0, y0 = text.get_position()
        assert x0 == x
        assert (y0 == y) if inside else (y0 < y)


def test_captions_have_no_widow():
    """Lines of even length: none is a lone word."""
    report = compared(models.ledge())
    figures = [plot.comparison(report), plot.occupancy(report), plot.graphical_model(grid())]
    figures += [plot.graphical_model(models.ledge(horizon=10), steps) for steps in (1, 2)]
    figures += [plot.optimism(models.ledge()), plot.optimism(lake())]
    for figure in figures:
        lines = [len(line) for line in figure.get_supxlabel().splitlines()]
        assert min(lines) > 0.6 * max(lines)


def test_graphical_model_says_how_much_of_it_is_drawn():
    def shown(model, steps=None):
        return re.search(
            r"the first (\d+) of (\S+) steps", caption(plot.graphical_model(model, steps))
        )

    assert shown(models.ledge(horizon=10)).groups() == ("3", "10")
    assert shown(models.ledge(horizon=None), 2).groups() == ("2", "∞")
    assert "the first of 10 steps" in caption(plot.graphical_model(models.ledge(horizon=10), 1))
    assert shown(models.ledge(horizon=2)) is None
    assert "the first" not in caption(plot.graphical_model(models.ledge(horizon=1)))


# Errors


@pytest.mark.parametrize("figure", [plot.occupancy, plot.policies])
def test_states_are_drawn_only_where_they_are_finite(figure):
    with pytest.raises(ValueError, match="finitely many states") as error:
        figure(compared_by_simulation())
    assert "plot.trajectories" in str(error.value)
    assert "plot.comparison" in str(error.value)
    assert "plot.trajectories" in str(error.value)


def test_optimism_needs_finite_states():
    with pytest.raises(ValueError, match="initial: enumeration needs finitely many states"):
        plot.optimism(continuous())


# Without an end


def endless():
    """Two states to leave, by one of two actions, and one that absorbs."""
    P = [[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], [[0.0, 0.4, 0.6], [0.3, 0.3, 0.4]], [[0, 0, 1.0]] * 2]
    r = [[-1.0, -2.0], [-0.5, -1.0], [0.0, 0.0]]
    return models.tabular(P, r, horizon=None, temperature=0.5)


def test_pictures_of_stationary_solutions():
    """Shares of the expected visits, the stationary policy, and the values without an axis t."""
    model = endless()
    exact, best = inference.soft_values(model, 1.0), inference.soft_values(model)
    report = cai.compare(model, {"exact": exact, "best": best})
    drawn = bars(plot.occupancy(report).axes[0])
    share = exact.states / exact.states.sum()
    assert heights(drawn["imagined"]) == pytest.approx(share.tolist())
    real = report["exact"].evaluation.states
    assert heights(drawn["real"]) == pytest.approx((real / real.sum()).tolist())
    drawn = bars(plot.policies(report).axes[1])
    policy = best.policy.log_probs.exp()[:2]
    assert heights(drawn["0"]) == pytest.approx(policy[:, 0].tolist())
    surplus = (exact.V - best.V) / 0.5
    drawn = [patch.get_height() for patch in plot.optimism(model).axes[0].patches]
    assert drawn == pytest.approx(surplus.tolist())


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            plot.optimism_curve,
            "curve: expected a result of inference.optimism_curve, got Solution",
        ),
        (plot.price_ladder, "ladder: expected a result of inference.price_ladder, got Solution"),
        (plot.losses, "fitted: expected a result of inference.fit, got Solution"),
    ],
)
def test_results_of_something_else_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(inference.posterior(models.ledge()))

"""Numbers in figures have the minus sign of their axes, U+2212, and no hyphen."""

import math
import re

import matplotlib
import pytest
import torch
from matplotlib.text import Text

import cai
from cai import inference, models, plot
from cai.drawing.signs import signs, three_digits

HYPHEN = re.compile(r"(?<![\w.])-(?=[\d.∞])")
MINUS = "−"
LEDGE = models.ledge()
BRIDGE = models.gridworld(["S.P", "..G"], horizon=4, slip=0.2, pit_reward=-5.0)


def words(figure):
    """All that is written in a figure once it is drawn, numbers of axes included."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def fitted():
    return inference.fit(LEDGE, cai.TabularPolicy(LEDGE), steps=20, progress=False)


def learnt():
    return inference.soft_q(LEDGE, steps=6000, progress=False)


def pessimist():
    """A demonstrator who guards against bad luck, so that the best optimism is negative."""
    walks = inference.soft_values(BRIDGE, optimism=-1.0).policy
    shown = cai.Demonstrations.from_trajectories(BRIDGE.simulate(walks, 400, seed=0))
    pits = cai.LinearReward({"steps": lambda s, a: s >= 0, "pit": lambda s, a: s == 2})
    return inference.fit_optimism(BRIDGE, shown, pits)


FIGURES = {
    "losses": lambda: plot.losses(fitted(), bound=-3.0),
    "learning_curve": lambda: plot.learning_curve(learnt(), inference.soft_values(LEDGE).V),
    "reward_map": lambda: plot.reward_map(torch.tensor([-1.0, 0.5, -5.0, 0.0, -2e4, 3.0]), BRIDGE),
    "optimism_profile": lambda: plot.optimism_profile(pessimist()),
    "price_ladder": lambda: plot.price_ladder(inference.price_ladder(LEDGE)),
    "comparison": lambda: plot.comparison(
        cai.compare(LEDGE, {"posterior": inference.posterior(LEDGE)})
    ),
    "optimism_curve": lambda: plot.optimism_curve(
        inference.optimism_curve(BRIDGE, [k / 4 for k in range(-8, 9)])
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_number_has_a_hyphen_as_its_sign(name):
    with matplotlib.rc_context({"axes.unicode_minus": True}):
        written = words(FIGURES[name]())
    assert any(MINUS in text for text in written), "nothing is negative"
    assert [text for text in written if HYPHEN.search(text)] == []


def test_the_caption_of_losses_has_the_elbo_with_its_sign():
    found = fitted()
    caption = " ".join(plot.losses(found).get_supxlabel().split())
    assert found.elbo < 0
    assert f"an ELBO of {MINUS}{-found.elbo:.4f} nats" in caption


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (-1.25, "−1.25"),
        (-0.0, "0"),
        (-1e-5, "−1e−05"),
        (-12345.6, "−12346"),
        (-math.inf, "−∞"),
        (1234.0, "1234"),
    ],
)
def test_numbers_are_spelt_with_minus_signs(x, text):
    assert three_digits(x) == text


def test_a_number_that_is_formatted_already():
    assert signs(f"{-0.5:.3f}") == "−0.500"
    assert signs("3.2") == "3.2"


def test_a_hyphen_is_noticed():
    assert HYPHEN.search("an ELBO of -3.1 nats")
    assert not HYPHEN.search("open-loop, 5-step, −3")

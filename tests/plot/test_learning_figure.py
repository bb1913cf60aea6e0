"""The figure of learning curves shows the numbers of its runs."""

import pytest
import torch

from cai import inference, models, plot

LEDGE = models.ledge()
RUNS = [inference.soft_q(LEDGE, steps=6000, seed=seed, progress=False) for seed in range(3)]


def test_one_run_beside_the_exact_values():
    exact = inference.soft_values(LEDGE).V
    figure = plot.learning_curve(RUNS[0], exact)
    assert [axes.get_title() for axes in figure.axes] == [
        "return of episodes",
        "KL from the action prior",
        "temperature",
        "state values",
    ]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    drawn = figure.axes[1].lines[0].get_ydata()
    assert torch.equal(torch.as_tensor(drawn), RUNS[0].history["divergence"])
    points = torch.as_tensor(figure.axes[3].collections[0].get_offsets().data)
    values = RUNS[0].values(torch.arange(5).expand(4, 5), torch.arange(4)[:, None].expand(4, 5))
    torch.testing.assert_close(points, torch.stack([exact[:-1].flatten(), values.flatten()], 1))
    worst = (exact[:-1] - values).abs().max() / exact[:-1].abs().max()
    assert f"the largest error is {worst:.1%}" in " ".join(figure.get_supxlabel().split())


def test_several_runs_and_their_mean():
    figure = plot.learning_curve(RUNS)
    assert len(figure.axes) == 3
    *_, mean = figure.axes[1].lines
    columns = torch.stack([run.history["divergence"] for run in RUNS])
    torch.testing.assert_close(torch.as_tensor(mean.get_ydata()), columns.mean(0))
    assert figure.axes[1].get_legend().get_texts()[0].get_text() == "mean of 3 seeds"


def test_what_was_not_learnt():
    for wrong in (3, [], [RUNS[0], None]):
        with pytest.raises(ValueError, match="learned: expected"):
            plot.learning_curve(wrong)


def test_a_run_without_an_end_of_an_episode():
    short = inference.soft_q(LEDGE, steps=64, progress=False)
    assert "return of" not in plot.learning_curve(short).get_supxlabel()

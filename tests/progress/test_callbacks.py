"""A callback is told of a run as it goes on, and ends it by True alone."""

import math
import sys
import types

import numpy as np
import pytest
import torch

import cai
from cai import inference, models
from cai.progress import progress_bar as bars

LEDGE = models.ledge()


def fit(callback, steps=50, model=LEDGE, **how):
    how = {"tolerance": -math.inf, "progress": False, **how}
    policy = cai.TabularPolicy(model)
    return inference.fit(model, policy, steps=steps, callback=callback, **how)


def test_a_record_holds_the_numbers_of_its_step():
    """The gradient is that of a fit by hand, and the mean of the losses that of the result."""
    records = []
    fitted = fit(records.append, schedule=lambda by: torch.optim.lr_scheduler.StepLR(by, 10))
    assert [x["step"] for x in records] == list(range(1, 51))
    assert set(records[0]) == {"step", "loss", "elbo", "gradient_norm", "learning_rate", "seconds"}
    assert [x["loss"] for x in records] == fitted.losses.tolist()
    means = [-x["elbo"] for x in records]
    assert means == pytest.approx(fitted.running_mean.tolist(), rel=1e-12)
    assert [x["learning_rate"] for x in records] == pytest.approx(
        [0.2 * 0.1 ** (k // 10) for k in range(50)]
    )
    seconds = [x["seconds"] for x in records]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    probe = cai.TabularPolicy(LEDGE)
    bound = inference.RolloutELBO("exact")
    bound.loss_and_grads(LEDGE, LEDGE.rollout(probe))
    assert records[0]["gradient_norm"] == pytest.approx(probe.logits.grad.norm().item(), rel=1e-9)


def test_the_norm_is_that_before_it_is_clipped():
    free, clipped = [], []
    fit(free.append, steps=1)
    fit(clipped.append, steps=1, clip=1e-3)
    assert clipped[0]["gradient_norm"] == free[0]["gradient_norm"] > 1e-3


def test_long_runs_have_a_hundred_records():
    records = []
    fit(records.append, steps=450)
    assert [x["step"] for x in records] == [math.ceil(k * 4.5) for k in range(1, 101)]


def test_true_ends_a_fit_and_the_result_says_so():
    fitted = fit(lambda record: record["step"] >= 7)
    assert len(fitted.losses) == 7
    assert fitted.stopped
    assert not fitted.converged
    assert not fit(lambda record: None).stopped


@pytest.mark.parametrize("answer", [None, 1, "stop", [True], False, np.bool_(False), torch.ones(1)])
def test_only_true_ends_it(answer):
    """A log or a figure returns what it likes."""
    assert len(fit(lambda record: answer, steps=3).losses) == 3


def test_without_a_callback_the_run_is_the_same_bit_for_bit():
    assert fit(None).losses.equal(fit(lambda record: None).losses)
    assert len(fit(lambda record: np.bool_(True), steps=3).losses) == 1
    assert len(fit(lambda record: torch.tensor(True), steps=3).losses) == 1


def test_a_stopped_fit_goes_on_from_its_file(tmp_path):
    path = tmp_path / "fit.pt"
    stopped = fit(lambda record: record["step"] == 20, checkpoint=path)
    assert stopped.stopped
    again = fit(None, checkpoint=path)
    assert not again.stopped
    assert again.losses.equal(fit(None).losses)


def test_an_error_in_a_callback_is_that_of_the_callback():
    def broken(record):
        return record["los"]

    with pytest.raises(
        ValueError, match=r"callback: expected a function of a record, got .*KeyError"
    ):
        fit(broken)
    with pytest.raises(ValueError, match="callback: expected a function of a record, got 3"):
        fit(3)


class Full(Exception):
    """What a logger may raise, of no class that the library knows."""


@pytest.mark.parametrize(
    "error", [OSError("the disk is full"), Full("quota"), FloatingPointError()]
)
def test_whatever_a_callback_raises_loses_nothing(error, tmp_path):
    """The step that it was told of is complete, and in the file."""

    def fails(record):
        if record["step"] >= 20:
            raise error

    path = tmp_path / "fit.pt"
    with pytest.raises(inference.FitStopped, match="callback: .*" + type(error).__name__) as caught:
        fit(fails, checkpoint=path)
    assert caught.value.step == 20
    assert "The parameters after it are in" in str(caught.value)
    assert fit(None, checkpoint=path).losses.equal(fit(None).losses)
    for name, learner in LEARNERS.items():
        with pytest.raises(inference.LearningStopped, match=f"{name}: .*callback") as stopped:
            learner(callback=fails, progress=False, checkpoint=tmp_path / name)
        assert stopped.value.taken == stopped.value.learned.history["steps"][-1]
        again = learner(progress=False, checkpoint=tmp_path / name)
        whole = learner(progress=False)
        assert torch.equal(again.history["loss"], whole.history["loss"])


def test_what_a_callback_draws_does_not_change_the_run():
    def draws(record):
        torch.rand(3)

    how = {"estimator": "score", "samples": 10}
    assert fit(None, **how).losses.equal(fit(draws, **how).losses)
    for learner in LEARNERS.values():
        alone, told = learner(progress=False), learner(progress=False, callback=draws)
        assert torch.equal(alone.history["loss"], told.history["loss"])


def test_the_bound_of_renyi_is_not_called_an_elbo():
    records = []
    with pytest.warns(UserWarning, match="counts on luck"):
        fit(records.append, estimator="renyi", optimism=1.0, samples=10, steps=3)
    assert "elbo" not in records[-1]
    assert math.isfinite(records[-1]["bound"])


LEARNERS = {
    "soft_q": lambda **how: inference.soft_q(LEDGE, steps=2000, **how),
    "policy_gradient": lambda **how: inference.policy_gradient(
        LEDGE, cai.TabularPolicy(LEDGE), steps=2000, **how
    ),
    "path_consistency": lambda **how: inference.path_consistency(
        LEDGE, cai.TabularPolicy(LEDGE), steps=2000, **how
    ),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_true_ends_a_learner_and_the_result_says_so(name):
    told = []

    def stop(record):
        told.append(record["step"])
        return record["step"] >= 500

    learnt = LEARNERS[name](callback=stop, progress=False)
    assert learnt.stopped
    assert learnt.history["steps"].tolist() == told
    assert 500 <= told[-1] < 1000
    assert not LEARNERS[name](progress=False).stopped


# Bars


class Kernel:
    config = {"IPKernelApp": {}}  # noqa: RUF012 - as traitlets has it


def notebook(monkeypatch):
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = Kernel
    monkeypatch.setitem(sys.modules, "IPython", ipython)


def test_a_notebook_without_widgets_gets_a_line_and_no_warning(monkeypatch, capsys):
    notebook(monkeypatch)
    monkeypatch.setattr(bars.importlib.util, "find_spec", lambda name: None)
    bar = bars.progress_bar(range(3), desc="fit")
    assert not bar.disable
    list(bar)
    assert "fit: 100%" in capsys.readouterr().err


def test_a_notebook_with_widgets_gets_the_bar_of_notebooks(monkeypatch):
    made = []
    notebook(monkeypatch)
    monkeypatch.setattr(bars, "_notebook_bar", lambda: lambda *x, **how: made.append(how))
    for heard in (False, True):
        monkeypatch.delenv("TQDM_DISABLE", raising=False)
        if heard:
            monkeypatch.setenv("TQDM_DISABLE", "1")
        bars.progress_bar(range(3), desc="fit")
    assert made == [{"desc": "fit", "disable": False}, {"desc": "fit", "disable": True}]


def test_elsewhere_a_bar_is_for_terminals(capsys):
    assert bars.progress_bar(range(3)).disable
    assert bars.progress_bar(range(3), shown=False).disable
    assert capsys.readouterr().err == ""


def test_asking_for_no_bar_makes_none_in_a_notebook_either(monkeypatch):
    notebook(monkeypatch)
    assert bars.progress_bar(range(3), shown=False).disable

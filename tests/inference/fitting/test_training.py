"""Training as people expect it: optimisers, annealing, checkpoints, interrupts, and what is NaN."""

import dataclasses
import functools
import io
import itertools
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import cai
from cai import inference, models
from cai.inference.fitting import checkpoint_file

BEST = pytest.approx(inference.soft_values(models.ledge()).elbo, abs=1e-3)


def ledge(**how):
    model = models.ledge()
    return inference.fit(model, cai.TabularPolicy(model), **how)


def walk(reward=lambda s, a: -((s - 1) ** 2), horizon=5, **how):
    return cai.TrajectoryModel(
        initial=dist.Normal(0.0, 0.3),
        dynamics=lambda s, a: dist.Normal(0.9 * s + 0.5 * a, 0.1),
        reward=reward,
        action_prior=dist.Normal(0.0, 1.0),
        horizon=horizon,
        **how,
    )


@pytest.mark.parametrize(
    ("optimizer", "steps"),
    [
        (functools.partial(torch.optim.RMSprop, lr=0.02), 600),
        (functools.partial(torch.optim.SGD, lr=1.0, momentum=0.9), 600),
        (functools.partial(torch.optim.LBFGS, line_search_fn="strong_wolfe"), 30),
    ],
)
def test_any_optimiser(optimizer, steps):
    assert ledge(optimizer=optimizer, steps=steps).elbo == BEST


def test_the_schedule_is_stepped_once_a_step():
    rates = []

    def schedule(optimizer):
        def factor(step):
            rates.append(step)
            return 1.0 if step < 3 else 0.0

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    fitted = ledge(schedule=schedule, steps=8)
    assert rates == list(range(9))
    assert len(set(fitted.losses[3:].tolist())) == 1
    assert fitted.losses[2] > fitted.losses[3]


def test_a_rate_that_falls_when_the_losses_do_not():
    losses = []

    class Watching(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            losses.append(metrics)
            super().step(metrics, epoch)

    fitted = ledge(schedule=Watching, steps=20)
    assert losses == fitted.losses.tolist()


def test_long_gradients_are_clipped_and_short_ones_left():
    """A step of plain descent is as long as the gradient, at most as long as the clip."""
    model = models.ledge()
    start = cai.TabularPolicy(model)

    def length(clip):
        by = functools.partial(torch.optim.SGD, lr=1.0)
        fitted = inference.fit(model, start, optimizer=by, clip=clip, steps=1)
        return (fitted.policy.logits - start.logits).norm().item()

    free = length(None)
    assert length(free / 3) == pytest.approx(free / 3, rel=1e-4)
    assert length(free * 3) == free


def test_annealing_follows_the_temperatures_and_ends_at_its_own():
    model = models.gym("FrozenLake-v1", horizon=20, temperature=0.05)
    policy = cai.TabularPolicy(model)
    fitted = inference.fit(
        model, policy, temperature=lambda step: max(0.05, 0.5 * 0.98**step), steps=500
    )
    hot = cai.evaluate(dataclasses.replace(model, temperature=0.5), policy).elbo
    assert fitted.losses[0].item() == pytest.approx(-hot, abs=1e-12)
    assert fitted.elbo == pytest.approx(inference.soft_values(model).elbo, abs=1e-2)
    assert len(fitted.losses) > 113 + 200  # not converged before α stays what it is


def test_no_convergence_before_the_last_temperature():
    fitted = ledge(temperature=lambda step: 1.0 if step < 399 else 0.9, steps=400)
    assert len(fitted.losses) == 400
    assert not fitted.converged


def test_the_last_temperature_is_that_of_the_last_step():
    """What would come after the last step, were there one, holds nothing up."""
    fitted = ledge(temperature=lambda step: 1.0 if step < 400 else 0.9, steps=400)
    plain = ledge(steps=400)
    assert fitted.converged
    assert len(fitted.losses) == len(plain.losses) < 400


@pytest.mark.parametrize(("worse", "steps"), [(0.28, 100), (0.29, 50)])
def test_what_is_worse_by_less_than_two_standard_errors_is_kept(worse, steps):
    """Losses are ±1, and their mean of 50 steps has a standard error of 1/7, then `worse` more.

    The policy's logits fall by a hundredth a step and say which step they are of.
    """

    def estimator(model, policy, samples):
        count = itertools.count()

        def estimate():
            policy.logits.sum().backward()
            n = next(count)
            return (-1) ** n + (worse if n >= 50 else 0)

        return estimate

    by = functools.partial(torch.optim.SGD, lr=0.01)
    fitted = ledge(estimator=estimator, optimizer=by, steps=100, tolerance=-math.inf)
    assert len(fitted.losses) == 100
    fallen = cai.TabularPolicy(models.ledge()).logits - fitted.policy.logits
    torch.testing.assert_close(fallen, torch.full_like(fallen, 0.01 * steps))


def test_the_convergence_test():
    assert ledge().converged
    patient = ledge(tolerance=-math.inf, steps=700)
    assert len(patient.losses) == 700
    assert not patient.converged
    hasty = ledge(tolerance=0.5, steps=700)
    assert len(hasty.losses) == 300


def test_training_that_goes_wrong_returns_what_was_best():
    """A rate that explodes after step 200."""

    def schedule(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1.0 if t < 200 else 1e3)

    fitted = ledge(schedule=schedule, steps=300, tolerance=-math.inf)
    assert fitted.losses[-50:].mean() > fitted.losses[150:200].mean() + 0.1
    assert fitted.elbo == pytest.approx(-fitted.losses[199].item(), abs=1e-3)


# Checkpoints: killed and resumed is never interrupted.

KILLED = """
import os, signal, sys
import test_training as these
these.RUNS[sys.argv[1]](sys.argv[2], lambda step: os.kill(os.getpid(), signal.SIGKILL))
"""


def table(path=None, at=lambda step: None, estimator="exact"):
    def temperature(step):
        if step == 33:
            at(step)
        return 0.8 if step < 20 else 1.0

    return ledge(
        steps=60, checkpoint=path, every=8, temperature=temperature, samples=9, seed=4,
        estimator=estimator, clip=0.1,
    )  # fmt: skip


def network(path=None, at=lambda step: None, estimator="pathwise"):
    def temperature(step):
        if step == 33:
            at(step)
        return 1.0

    torch.manual_seed(1)
    model = walk()
    return inference.fit(
        model, cai.NeuralPolicy(model, (8,)), estimator=estimator, steps=60, samples=9,
        checkpoint=path, every=8, temperature=temperature,
        optimizer=functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9),
        schedule=lambda by: torch.optim.lr_scheduler.CosineAnnealingLR(by, 60),
    )  # fmt: skip


RUNS = {
    "exact": table,
    "enumerated": functools.partial(table, estimator="enumerated"),
    "mirror": functools.partial(table, estimator="mirror"),
    "network": network,
    "critic": functools.partial(table, estimator="critic"),
    "network, critic": functools.partial(network, estimator="critic"),
}


def assert_same(one, other):
    assert torch.equal(one.losses, other.losses)
    assert one.elbo == other.elbo
    assert one.converged == other.converged
    for x, y in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(x, y)


def test_killed_and_resumed_is_never_interrupted(tmp_path):
    """Two in processes of their own, which die in the middle of step 33."""
    for name in ("enumerated", "network"):
        path = tmp_path / f"{name}.pt"
        died = subprocess.run(
            [sys.executable, "-c", KILLED, name, path],
            cwd=os.path.dirname(__file__),
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # as here: sums may round otherwise on more
            check=False,
            capture_output=True,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert len(torch.load(path, weights_only=True)["state"]["run"]["losses"]) == 32
        assert_same(RUNS[name](path), RUNS[name]())


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", RUNS)
def test_broken_off_and_resumed(name, tmp_path):
    def stop(step):
        raise Stop

    path, whole = tmp_path / "fit.pt", RUNS[name]()
    with pytest.raises(Stop) if len(whole.losses) > 33 else pytest.MonkeyPatch.context():
        RUNS[name](path, stop)
    assert_same(RUNS[name](path), whole)
    assert_same(RUNS[name](path, stop), whole)  # what has ended is not trained again
    assert os.listdir(tmp_path) == ["fit.pt"]


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_after_the_step_and_keeps_the_rest(tmp_path, capsys):
    path, before = tmp_path / "fit.pt", signal.getsignal(signal.SIGINT)
    stopped = table(path, lambda step: os.kill(os.getpid(), signal.SIGINT))
    assert len(stopped.losses) == 34
    assert not stopped.converged
    assert stopped.elbo > -3.5
    assert "fit: interrupted, returning the best so far" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    assert_same(table(path), table())


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_interrupts_the_step(capsys):
    def twice(step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one went unheard")

    stopped = table(None, twice)
    assert len(stopped.losses) == 33
    assert "interrupted within a step" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.usefixtures("heard")
def test_the_bar_shows_the_elbo_and_its_moving_average(monkeypatch, tmp_path):
    path = tmp_path / "fit.pt"
    stopped = table(path, lambda step: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "200")  # a narrow bar is cut off
    monkeypatch.setenv("LINES", "50")
    fitted = table(path)
    shown = sys.stderr.getvalue()
    assert "57%" in shown  # 34 of 60 steps were there already
    assert len(stopped.losses) == 34
    last, mean = fitted.losses[-1], fitted.running_mean[-1]
    assert f"ELBO {-last:.4f} nats, mean of 50: {-mean:.4f}" in shown


def test_a_crash_while_writing_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "fit.pt"
    ledge(steps=5, checkpoint=path)
    before = path.read_bytes()
    save = torch.save

    def fails(content, file):
        save(content, file)
        raise OSError("the disk is full")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="full"):
        checkpoint_file.write(path, {}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["fit.pt"]


def test_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "fit.pt"
    ledge(steps=5, checkpoint=path)
    whole = path.read_bytes()
    for broken in (b"", whole[:100], whole[: len(whole) // 2], whole[:-30], b"hello"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"checkpoint .*: expected a file that fit wrote"):
            ledge(steps=5, checkpoint=path)
        assert path.read_bytes() == broken
    torch.save({"logits": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="got a file of something else; delete it"):
        ledge(steps=5, checkpoint=path)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_file_cannot_run_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("fit.pt", "wb") as file:
        pickle.dump(Bomb(), file)
    with pytest.raises(ValueError, match="cannot be read"):
        ledge(steps=5, checkpoint="fit.pt")
    assert os.listdir() == ["fit.pt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 6}, "expected a run with steps = 6, got one with steps = 5"),
        ({"seed": 1}, "seed = 1"),
        ({"learning_rate": 0.5}, r"optimizer = Adam\(lr=0.5"),
        ({"estimator": "mirror"}, "estimator = mirror"),
    ],
)
def test_a_file_of_another_run(change, message, tmp_path):
    path = tmp_path / "fit.pt"
    ledge(steps=5, checkpoint=path)
    with pytest.raises(ValueError, match=message):
        ledge(**{"steps": 5, "checkpoint": path, **change})
    lottery = models.lottery()
    with pytest.raises(
        ValueError, match=r"policy = TabularPolicy\(logits \[.*resume with the same arguments"
    ):
        inference.fit(lottery, cai.TabularPolicy(lottery), steps=5, checkpoint=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.5}, "temperature = 0.5"),
        ({"reward": lambda s, a: -2.0 * s}, "the return under the model's prior = "),
        ({"final_reward": lambda s: -2.0 * s}, "the return under the model's prior = "),
    ],
)
def test_a_file_of_another_model(change, message, tmp_path):
    """Else the policy of the old rewards would come back, as one that is trained already."""
    for model in (models.ledge(), walk()):
        path = tmp_path / f"{model.horizon}.pt"
        linear = isinstance(model.initial, dist.Categorical)
        policy = cai.TabularPolicy(model) if linear else cai.NeuralPolicy(model, (4,))
        how = {"steps": 3, "samples": 4, "checkpoint": path}
        inference.fit(model, policy, **how)
        with pytest.raises(ValueError, match=message):
            inference.fit(dataclasses.replace(model, **change), policy, **how)


def test_a_file_of_another_critic_or_schedule(tmp_path):
    path = tmp_path / "fit.pt"
    critic = functools.partial(inference.critic_gradient, lam=0.5)
    how = {"steps": 3, "samples": 4, "checkpoint": path}
    ledge(estimator=critic, **how)
    with pytest.raises(ValueError, match=r"estimator = critic_gradient\(lam=0.1\), got one"):
        ledge(estimator=functools.partial(inference.critic_gradient, lam=0.1), **how)
    with pytest.raises(ValueError, match="schedule = StepLR"):
        ledge(estimator=critic, schedule=lambda by: torch.optim.lr_scheduler.StepLR(by, 2), **how)


def test_numbers_of_numpy_and_state_in_another_type_are_resumed(tmp_path):
    """NAdam keeps a product in float32, which torch would give back in the policy's float64."""

    def stop(step):
        if step == 7:
            raise Stop
        return 1.0

    how = {
        "steps": 12, "samples": 4, "every": 4, "seed": np.int64(3), "clip": np.float32(0.5),
        "tolerance": np.float64(0.0), "estimator": "score",
        "optimizer": functools.partial(torch.optim.NAdam, lr=np.float64(0.1)),
    }  # fmt: skip
    model = dataclasses.replace(models.ledge(), discount=np.float64(0.9))
    model = dataclasses.replace(model, temperature=np.float64(1.0))
    policy, path = cai.TabularPolicy(model), tmp_path / "fit.pt"
    with pytest.raises(Stop):
        inference.fit(model, policy, checkpoint=path, temperature=stop, **how)
    assert_same(inference.fit(model, policy, checkpoint=path, **how), ledge_of(model, **how))


def ledge_of(model, **how):
    return inference.fit(model, cai.TabularPolicy(model), **how)


def test_a_state_that_could_not_be_read_again_is_refused_when_it_is_written(tmp_path):
    class Odd(torch.optim.SGD):
        def state_dict(self):
            return {**super().state_dict(), "what": Stop()}

    with pytest.raises(inference.FitStopped, match="expected a state of plain values") as caught:
        ledge(steps=5, checkpoint=tmp_path / "fit.pt", optimizer=functools.partial(Odd, lr=0.1))
    assert caught.value.policy.logits.any()
    assert os.listdir(tmp_path) == []


def test_a_disk_that_goes_away_loses_nothing(tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()

    def temperature(step):
        if step == 6:
            shutil.rmtree(folder)
        return 1.0

    with pytest.raises(inference.FitStopped, match="expected room to write") as caught:
        ledge(steps=20, every=5, checkpoint=folder / "fit.pt", temperature=temperature)
    assert caught.value.step == 10
    assert "clip" not in str(caught.value)  # which would be of no help


def test_a_file_that_lacks_something(tmp_path):
    path = tmp_path / "fit.pt"
    ledge(steps=5, checkpoint=path)
    content = torch.load(path, weights_only=True)
    for less in ({}, {"settings": 3}, {"state": {}}):
        torch.save({**content, **less} if less else {"format": content["format"]}, path)
        with pytest.raises(ValueError, match="a file that fit wrote, got"):
            ledge(steps=5, checkpoint=path)


# What is not finite.


def test_a_reward_that_is_nan_names_its_site():
    """The square root of what is positive at the start only: NaN once the walk has left."""
    model = walk(reward=lambda s, a: -(3.0 - s).sqrt(), horizon=6)
    start = cai.NeuralPolicy(model, (8,))
    with pytest.raises(inference.FitStopped, match=r"step \d+: the loss is nan, .* o_\d: .*") as e:
        inference.fit(model, start, estimator="pathwise", learning_rate=0.1, samples=20)
    stopped = e.value
    assert stopped.site.startswith("o_")
    assert len(stopped.losses) == stopped.step > 0
    assert all(p.isfinite().all() for p in stopped.policy.parameters())
    moved = zip(stopped.policy.parameters(), start.parameters(), strict=True)
    assert any(not torch.equal(x, y) for x, y in moved)


def test_a_gradient_that_is_nan_names_its_site():
    """√x² has no slope at zero, where the third state is put."""
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 0.3),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1),
        reward=lambda s, a: -((s.clamp(min=1.0) - 1.0).pow(2) * a).sqrt().nan_to_num(0.0),
        action_prior=dist.Normal(0.0, 1.0),
        horizon=4,
    )
    with pytest.raises(inference.FitStopped, match=r"the gradient of .* is not finite") as e:
        inference.fit(model, cai.NeuralPolicy(model, (8,)), estimator="pathwise", steps=30)
    assert e.value.step == 0
    assert e.value.site == "o_0"


class Fragile(nn.Module):
    """A Gaussian whose mean is lost once its parameter has moved far enough."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.0))

    def forward(self, t, s):
        lost = torch.where((self.mean.abs() > 0.1) & (torch.as_tensor(t) == 2), math.nan, 0.0)
        return dist.Normal(self.mean + lost + 0 * s, 1.0)


def test_a_policy_that_is_nan_names_its_site():
    with pytest.raises(inference.FitStopped, match="a_2: its distribution refuses") as e:
        inference.fit(walk(), Fragile(), learning_rate=0.05, samples=10, estimator="score")
    assert e.value.site == "a_2"
    assert e.value.step == len(e.value.losses) > 1


@pytest.mark.parametrize("estimator", ["enumerated", "exact", "score"])
def test_a_reward_of_minus_infinity_that_cannot_be_avoided(estimator):
    model = dataclasses.replace(models.ledge(), reward=-math.inf)
    with pytest.raises(ValueError, match=r"^fit: the ELBO is -inf: the policy can reach"):
        ledge_of(model, estimator=estimator, samples=4)


def test_a_reward_of_minus_infinity_late_loses_nothing():
    model = walk(reward=lambda s, a: torch.where(s > 1.5, -math.inf, s))
    with pytest.raises(inference.FitStopped, match=r"the ELBO is -inf.*the site o_") as e:
        inference.fit(model, cai.NeuralPolicy(model, (8,)), estimator="score", samples=4)
    assert e.value.step > 0


# Arguments.


def test_what_cannot_be_trained_with(tmp_path):
    with pytest.raises(ValueError, match="learning_rate: expected None beside an optimizer"):
        ledge(learning_rate=0.1, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(ValueError, match=r"optimizer: expected a function .* got one that returns"):
        ledge(optimizer=lambda parameters: parameters)
    with pytest.raises(ValueError, match="schedule: expected a function from an optimiser"):
        ledge(schedule=lambda by: by)
    with pytest.raises(ValueError, match="optimizer: expected a function that makes one, got 'a'"):
        ledge(optimizer="a")
    other = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="optimizer: expected one of the parameters that"):
        ledge(optimizer=lambda parameters: torch.optim.SGD([other], lr=0.1))
    with pytest.raises(ValueError, match="schedule: expected a function that makes one, got 3"):
        ledge(schedule=3)
    with pytest.raises(ValueError, match=r"temperature: expected a function step -> α, got 0.5"):
        ledge(temperature=0.5)
    with pytest.raises(ValueError, match="estimator: expected a function that makes an estimator"):
        ledge(estimator=lambda model, policy, samples: None)
    with pytest.raises(ValueError, match="lam: expected a number"):
        ledge(estimator=functools.partial(inference.critic_gradient, lam="x"))
    with pytest.raises(ValueError, match="optimism: expected a real number"):
        ledge(estimator="renyi", optimism="x")
    with pytest.raises(ValueError, match=r"device: .*float64"):
        ledge(device="meta")
    for seed in (None, 0.5, "3", math.nan, 2**63):
        with pytest.raises(ValueError, match="seed: expected a whole number"):
            ledge(seed=seed)
    with pytest.raises(ValueError, match="clip: expected a finite number above 0, got 0"):
        ledge(clip=0)
    with pytest.raises(ValueError, match="every: expected a whole number"):
        ledge(every=0)
    with pytest.raises(ValueError, match=r"temperature\(\d+\): expected a finite number above 0"):
        ledge(temperature=lambda step: -1.0)
    with pytest.raises(ValueError, match="tolerance: expected a number"):
        ledge(tolerance="small")
    with pytest.raises(ValueError, match='device: expected "cpu"'):
        ledge(device="nowhere")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='device: expected "cpu", or "cuda" where there is'):
            ledge(device="cuda")
    with pytest.raises(ValueError, match="checkpoint: expected the path of a file, got True"):
        ledge(checkpoint=True)
    with pytest.raises(ValueError, match=r"checkpoint: .* does not exist"):
        ledge(checkpoint=tmp_path / "nowhere" / "fit.pt")
    with pytest.raises(ValueError, match=r"checkpoint: expected .*a name holds no zeros"):
        ledge(checkpoint="fit\0.pt")
    with pytest.raises(ValueError, match=r"checkpoint: expected .*: a folder"):
        ledge(checkpoint=tmp_path)


@pytest.mark.parametrize("estimator", ["exact", "score", "critic"])
def test_a_policy_that_does_without_its_parameters(estimator):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(2))

        def forward(self, t, s):
            return dist.Categorical(torch.ones(*s.shape, 2))

    with pytest.raises(ValueError, match="policy: expected actions whose probabilities depend"):
        inference.fit(models.ledge(), Idle(), estimator=estimator, steps=1)


# A set of starts.


def test_starts_are_drawn_and_scored():
    states = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 1.0], [4.0, 5.0]])
    starts = cai.EmpiricalStates(states)
    draws = starts.sample((4000,))
    share = (draws == states[0]).all(-1).double().mean().item()
    assert share == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 4000))
    assert starts.log_prob(states).exp().tolist() == [0.5, 0.25, 0.5, 0.25]
    assert starts.log_prob(torch.tensor([0.0, 3.0])) == -math.inf
    assert starts.expand([3]).sample().shape == (3, 2)
    assert starts.expand([3]).log_prob(states[1]).shape == (3,)
    single = cai.EmpiricalStates(torch.tensor([1.0, 2.0]))
    assert single.log_prob(torch.tensor([[1.0], [3.0]])).exp().tolist() == [[0.5], [0.0]]


def test_a_policy_is_amortised_over_its_starts():
    """Half of them on either side of the target: a feedback serves both, a plan cannot."""
    states = torch.tensor([-2.0, 2.0]).repeat_interleave(5)
    model = dataclasses.replace(walk(horizon=2), initial=cai.EmpiricalStates(states))
    how = {"steps": 300, "samples": 32, "estimator": "pathwise", "learning_rate": 0.03}
    fitted = inference.fit(model, cai.NeuralPolicy(model, (16,)), **how)
    where = torch.tensor([-2.0, 2.0])
    push = fitted.policy(0, where).mean if hasattr(fitted.policy(0, where), "mean") else None
    assert push[0] > 0.5
    assert push[1] < push[0] - 1


def test_starts_that_are_none():
    with pytest.raises(ValueError, match=r"take initial=dist\.Categorical"):
        cai.EmpiricalStates(torch.arange(3))
    with pytest.raises(ValueError, match="states: expected at least one row"):
        cai.EmpiricalStates(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="states: expected at least one row, of finite numbers"):
        cai.EmpiricalStates(torch.tensor([math.nan]))

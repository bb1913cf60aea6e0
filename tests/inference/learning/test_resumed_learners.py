"""A learner that was killed, broken off or interrupted ends as one that never was."""

import functools
import io
import itertools
import os
import signal
import subprocess
import sys

import gymnasium
import pytest
import torch

import cai
from cai import inference, models
from cai.inference.fitting.loop import reading
from cai.inference.learning.action_values import ActionValues
from cai.stepping.model_source import ModelSource

KILLED = """
import os, signal, sys
import test_resumed_learners as these
these.RUNS[sys.argv[1]](sys.argv[2], lambda taken: os.kill(os.getpid(), signal.SIGKILL))
"""
LAST = 1300  # transitions of which the next are never taken


def at_last(at, taken):
    if taken >= LAST:
        at(taken)


def tabular(path=None, at=lambda taken: None, horizon=None, **how):
    def temperature(taken):
        at_last(at, taken)
        return 2.0 if taken < 1000 else 1.0

    model = models.ledge(horizon=horizon, discount=0.9)
    how = {"num_envs": 7, "steps": 1800, "every": 400, "seed": 3, "progress": False, **how}
    return inference.soft_q(model, temperature=temperature, checkpoint=path, **how)


def network(path=None, at=lambda taken: None, **how):
    how = {"length": 3, "horizon": 4, "batch": 16, "replay": 700, **how}
    return tabular(path, at, hidden=(8,), **how)


def gradient(path=None, at=lambda taken: None, model=None, **how):
    def temperature(taken):
        at_last(at, taken)
        return 1.0

    torch.manual_seed(1)
    model = model or models.ledge()
    discrete = not model.initial.sample().dtype.is_floating_point
    policy = cai.TabularPolicy(model) if discrete else cai.NeuralPolicy(model, (8,))
    how = {"num_envs": 4, "length": 8, "steps": 1800, "every": 400, "progress": False, **how}
    return inference.policy_gradient(model, policy, temperature=temperature, checkpoint=path, **how)


class Watched(cai.TabularPolicy):
    """Says how many steps it was asked for."""

    def __init__(self, model, at):
        super().__init__(model)
        self.asked, self.at = 0, at

    def __deepcopy__(self, memo):
        return Watched(models.ledge(), self.at)

    def forward(self, t, s):
        self.asked += 1
        at_last(self.at, 4 * self.asked // 3)  # 24 times a window of 32 transitions
        return super().forward(t, s)


def consistency(path=None, at=lambda taken: None, **how):
    model = models.ledge()
    how = {"num_envs": 4, "length": 8, "steps": 1800, "every": 400, "progress": False, **how}
    policy = Watched(model, at)
    return inference.path_consistency(model, policy, lag=0.1, checkpoint=path, **how)


def unified(path=None, at=lambda taken: None, **how):
    model = models.ledge()
    how = {"num_envs": 4, "length": 8, "steps": 1800, "every": 400, "progress": False, **how}
    return inference.path_consistency(
        model,
        None,
        hidden=(8,),
        lag=0.1,
        checkpoint=path,
        callback=lambda record: at_last(at, record["step"]),
        **how,
    )


def actor_critic(path=None, at=lambda taken: None, model=None, learner=inference.sac, **how):
    def temperature(taken):
        at_last(at, taken)
        return 2.0 if taken < 1000 else 1.0

    model = model or models.ledge(horizon=4, discount=0.9)
    how = {"num_envs": 7, "steps": 1800, "every": 400, "batch": 16, "replay": 700, **how}
    return learner(
        model,
        hidden=(8,),
        warm_up=300,
        updates=1,
        temperature=temperature,
        checkpoint=path,
        progress=False,
        **how,
    )


RUNS = {
    "soft_q": tabular,
    "soft_q, timed segments": functools.partial(tabular, horizon=4, length=3),
    "soft_q, network": network,
    "soft_q, latest segments": functools.partial(network, replay=0, lag=None),
    "sac": actor_critic,
    "sac, program": lambda path=None, at=lambda taken: None: actor_critic(
        path, at, models.pendulum(horizon=20)
    ),
    "actor_critic": functools.partial(actor_critic, learner=inference.actor_critic),
    "stein_soft_q": lambda path=None, at=lambda taken: None: actor_critic(
        path, at, models.pendulum(horizon=20), inference.stein_soft_q, exploration=0.2
    ),
    "stein_soft_q, hard": lambda path=None, at=lambda taken: None: actor_critic(
        path, at, models.pendulum(horizon=20), inference.stein_soft_q, rule="hard"
    ),
    "policy_gradient": gradient,
    "policy_gradient, program": lambda path=None, at=lambda taken: None: gradient(
        path, at, models.pendulum(horizon=20)
    ),
    "path_consistency": consistency,
    "path_consistency, one network": unified,
}


def assert_same(one, other, states=5):
    assert one.history.keys() == other.history.keys()
    for name, column in one.history.items():
        assert torch.equal(column.nan_to_num(0.5), other.history[name].nan_to_num(0.5))
    assert one.temperature == other.temperature
    for x, y in zip(numbers(one.policy), numbers(other.policy), strict=True):
        assert torch.equal(x, y)
    if not isinstance(one.policy, cai.NeuralPolicy):
        s = torch.arange(states)
        assert torch.equal(one.values(s), other.values(s))


def numbers(policy):
    return [*policy.parameters(), *policy.buffers()]


@pytest.mark.parametrize("name", RUNS)
def test_killed_and_resumed_is_never_interrupted(name, tmp_path):
    path = tmp_path / "run.pt"
    died = subprocess.run(
        [sys.executable, "-c", KILLED, name, path],
        cwd=os.path.dirname(__file__),
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as here: sums may round otherwise on more
        check=False,
        capture_output=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    kept = torch.load(path, weights_only=True)["state"]["run"]["taken"]
    assert LAST - 500 < kept <= LAST
    whole = RUNS[name]()
    assert_same(RUNS[name](path), whole)
    written = path.read_bytes()
    with reading():  # what has ended is read, and learns no more
        assert_same(RUNS[name](path), whole)
    assert path.read_bytes() == written
    assert {"run.pt", "run.pt.replay"}.issuperset(os.listdir(tmp_path))


def test_what_stopped_loses_nothing_and_goes_on(tmp_path):
    """Temperatures that are none, like all that raises in a step."""
    path = tmp_path / "run.pt"

    def fails(taken):
        raise ZeroDivisionError("once")

    with pytest.raises(
        inference.LearningStopped, match=r"soft_q: stopped after 1302 of 1800 .*: once; .*\. What"
    ) as stopped:
        tabular(path, fails)
    assert stopped.value.taken == 1302
    assert stopped.value.learned.values(0) != 0
    assert_same(tabular(path), tabular())


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_after_the_step_and_returns_the_latest(tmp_path, capsys):
    path = tmp_path / "run.pt"

    def interrupts(taken):
        os.kill(os.getpid(), signal.SIGINT)

    stopped = tabular(path, interrupts)
    assert stopped.history["steps"][-1] < LAST + 50
    assert "soft_q: interrupted, returning the latest so far" in capsys.readouterr().err
    assert_same(tabular(path), tabular())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_shows_return_divergence_and_temperature(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "200")  # a narrow bar is cut off
    monkeypatch.setenv("LINES", "50")
    learnt = tabular(progress=True)
    shown = sys.stderr.getvalue()
    last = {name: column[-1].item() for name, column in learnt.history.items()}
    assert f"return {last['returns']:.4g}, KL {last['divergence']:.3g} nats" in shown
    assert "temperature 1" in shown
    assert "1800/1800" in shown  # of whole steps of 7 copies


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 200}, "expected a run with steps = 200, got one with steps = 100"),
        ({"seed": 1}, "expected a run with seed = 1, got one with seed = 0"),
        ({"num_envs": 2}, "num_envs = 2"),
        ({"rule": "hard"}, "rule = hard, got one with rule = soft"),
        ({"source": models.ledge(temperature=0.5)}, "temperature = 0.5"),
        ({"source": models.ledge(horizon=9)}, "horizon = 9"),
        ({"source": models.ledge(gives_way=0.4)}, "return under the model's prior"),
        ({"source": ModelSource(models.ledge(), 64, terminates=True)}, "terminates = True"),
        (
            {"temperature": lambda taken: 0.5},
            r"temperature\(0\) = 0.5, got one with temperature\(0\) = 1;",
        ),
        ({"behaviour": lambda t, s: models.ledge().prior(s)}, "behaviour = <lambda>"),
        ({"source": models.environment("FrozenLake-v1")}, "horizon = 100"),
    ],
)
def test_another_run_is_refused(changes, message, tmp_path):
    arguments = {"source": models.ledge(), "steps": 100, "progress": False}
    arguments["checkpoint"] = tmp_path / "run.pt"
    inference.soft_q(**arguments)
    inference.soft_q(**arguments)
    with pytest.raises(ValueError, match=message) as refused:
        inference.soft_q(**(arguments | changes))
    assert "\n" not in str(refused.value)


def test_files_that_are_no_checkpoint_of_this_learner(tmp_path):
    path = tmp_path / "run.pt"
    tabular(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for broken in (b"", whole[:100], whole[:-30], b"hello", bytes(flipped)):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"checkpoint .*: expected a file that soft_q wrote"):
            tabular(path)
        assert path.read_bytes() == broken
    gradient(path := tmp_path / "other.pt")
    with pytest.raises(ValueError, match="a file that soft_q wrote, got one of policy_gradient"):
        tabular(path)
    with pytest.raises(ValueError, match="checkpoint: expected the path of a file"):
        tabular(tmp_path)
    with pytest.raises(ValueError, match="every: expected"):
        tabular(every=0)


def test_a_policy_of_the_same_shapes_that_acts_otherwise_is_refused(tmp_path):
    class Sharper(cai.TabularPolicy):
        def forward(self, t, s):
            other = super().forward(t, s)
            return type(other)(logits=3 * other.logits)

    Sharper.__name__ = "TabularPolicy"
    model = models.ledge()
    how = {"steps": 500, "checkpoint": tmp_path / "run.pt", "progress": False}
    inference.policy_gradient(model, cai.TabularPolicy(model), **how)
    with pytest.raises(ValueError, match="expected a run with the same policy"):
        inference.policy_gradient(model, Sharper(model), **how)


def lake(path=None, at=lambda taken: None, **options):
    def temperature(taken):
        at_last(at, taken)
        return 0.3

    source = models.environment("FrozenLake-v1", discount=0.8, **options)
    how = {"steps": 3000, "num_envs": 5, "every": 400, "progress": False}
    return inference.soft_q(source, temperature=temperature, checkpoint=path, **how)


def test_an_environment_goes_on_with_new_episodes_and_says_so(tmp_path, capsys):
    path = tmp_path / "run.pt"

    def fails(taken):
        raise ZeroDivisionError

    with pytest.raises(inference.LearningStopped):
        lake(path, fails)
    (tmp_path / "copy.pt").write_bytes(path.read_bytes())
    capsys.readouterr()
    resumed = lake(path)
    said = capsys.readouterr().err
    assert "soft_q: goes on after 1200 of 3000; episodes begin anew, since the state" in said
    assert resumed.history["steps"][-1] == 3000
    assert_same(resumed, lake(tmp_path / "copy.pt"), states=16)  # the same ones each time
    with pytest.raises(ValueError, match=r"environment = FrozenLake-v1\(map_name='8x8'\)"):
        lake(path, map_name="8x8")


class Ten(gymnasium.Env):
    """Ten steps that pay one each; the state counts them."""

    observation_space = gymnasium.spaces.Discrete(11)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return 0, {}

    def step(self, action):
        self.at += 1
        return self.at, 1.0, self.at == 10, False, {}


@pytest.mark.parametrize("how", [{}, {"hidden": (4,), "batch": 8}])
def test_episodes_that_do_not_go_on_are_over_for_returns_and_segments(how, tmp_path, monkeypatch):
    """Resumed after 405 steps of each copy, in the middle of an episode."""
    if "Ten-v0" not in gymnasium.registry:
        gymnasium.register("Ten-v0", entry_point=Ten)
    source, seen = models.environment("Ten-v0", horizon=None), []
    how = {"steps": 4000, "num_envs": 5, "every": 2025, "length": 3, "progress": False, **how}
    how["checkpoint"] = tmp_path / "run.pt"
    target = ActionValues.target

    def watched(values, segment, discount):
        seen.append(list(segment))
        return target(values, segment, discount)

    with pytest.raises(inference.LearningStopped):
        inference.soft_q(source, temperature=stops_after(2030), **how)
    monkeypatch.setattr(ActionValues, "target", watched)
    resumed = inference.soft_q(source, temperature=lambda taken: 1.0, **how)
    assert resumed.history["returns"].nan_to_num(10.0).unique().tolist() == [10.0]
    assert len(seen) > 300
    for segment in seen:
        for step, after in itertools.pairwise(segment):
            assert (step.over | (step.s_next == after.s)).all()


def stops_after(last):
    def temperature(taken):
        if taken >= last:
            raise ZeroDivisionError
        return 1.0

    return temperature


def test_a_checkpoint_changes_nothing(tmp_path):
    for run in (lake, tabular, network, gradient):
        assert_same(run(tmp_path / f"{run.__name__}.pt"), run())


class Fragile(gymnasium.Env):
    """Works for a while."""

    observation_space = gymnasium.spaces.Discrete(3)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        Fragile.steps += 1
        if Fragile.steps > 2000:
            raise OSError("the cable\nis loose")
        return int(self.np_random.integers(3)), 1.0, bool(self.np_random.random() < 0.1), False, {}


def test_an_environment_that_raises_loses_no_run(tmp_path):
    gymnasium.register("Fragile-v0", entry_point=Fragile, max_episode_steps=10)
    source, path = models.environment("Fragile-v0"), tmp_path / "run.pt"
    how = {"steps": 4000, "num_envs": 5, "checkpoint": path, "every": 500, "progress": False}
    Fragile.steps = 0
    with pytest.raises(inference.LearningStopped) as stopped:
        inference.soft_q(source, **how)
    assert "environment: expected one whose step returns, got one that raised OSError: the " in str(
        stopped.value
    )
    assert "\n" not in str(stopped.value)
    assert stopped.value.taken == 2000
    Fragile.steps = 0
    assert inference.soft_q(source, **how).history["steps"][-1] == 4000


def test_the_divergence_is_that_of_the_policy_in_the_states_it_met():
    """At the end of a long run, that of the best policy along its own episodes."""
    model = models.ledge()
    best = inference.soft_values(model).policy
    found = cai.evaluate(model, best)
    expected = (found.expected_return / model.temperature - found.elbo) / model.horizon
    table = cai.TabularPolicy(model)
    learnt = [
        inference.soft_q(model, steps=60_000, exploration=0.0, progress=False),
        inference.policy_gradient(
            model, table, steps=60_000, num_envs=64, learning_rate=0.03, progress=False
        ),
        inference.path_consistency(
            model, table, steps=60_000, length=4, ends="first", learning_rate=0.03, progress=False
        ),
    ]
    for result in learnt:
        assert result.history["divergence"][-20:].mean().item() == pytest.approx(expected, abs=0.05)
        assert result.history["loss"].isfinite().any()
    assert expected > 0.02

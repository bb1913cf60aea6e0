"""Models as environments of Gymnasium, and environments as models."""

import warnings

import gymnasium
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import cai
from cai import inference, models

MODELS = [models.ledge, models.pendulum, models.cartpole, models.multigoal, models.lottery]


@pytest.mark.parametrize("make", MODELS)
def test_an_environment_pays_what_the_model_pays(make):
    model = make(horizon=5)
    n = 2000
    envs = models.as_environment(model, n)
    observations, _ = envs.reset(seed=0)
    total = np.zeros(n)
    for t in range(5):
        s = torch.as_tensor(observations[:, 0])
        assert np.allclose(observations[:, -1], t if observations.dtype.kind == "i" else t / 5)
        torch.manual_seed(t)
        prior = model.prior(s.long() if observations.dtype.kind == "i" else s, 0)
        a = prior.sample(() if prior.batch_shape else (n,))
        observations, reward, ended, cut, _ = envs.step(a.numpy())
        total += reward
        assert (ended == (t == 4)).all()
        assert not cut.any()
    expected = model.simulate(lambda t, s: model.prior(s, t), n, seed=1).returns
    error = np.hypot(total.std(), expected.std().item()) / n**0.5
    assert total.mean() == pytest.approx(expected.mean().item(), abs=4.5 * error + 1e-9)


def test_the_step_after_the_end_begins_the_next_episode_and_pays_nothing():
    envs = models.as_environment(models.ledge(horizon=2), 3)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    safe = np.zeros(3, int)
    envs.step(safe)
    observations, reward, ended, _, _ = envs.step(safe)
    assert ended.all()
    assert (observations[:, 1] == 2).all()
    observations, reward, ended, _, _ = envs.step(safe)
    assert (observations == 0).all()
    assert not (reward.any())
    assert not (ended.any())
    observations, reward, _, _, _ = envs.step(safe)
    assert (observations[:, 1] == 1).all()
    assert reward.all()


def test_the_same_seed_makes_the_same_run_and_torchs_generator_stays():
    runs, before = [], torch.get_rng_state()
    for _ in range(2):
        envs = models.as_environment(models.gym("FrozenLake-v1", horizon=None), 20)
        envs.reset(seed=3)
        runs.append([envs.step(np.full(20, k % 4))[0] for k in range(30)])
    assert np.array_equal(*runs)
    assert torch.equal(torch.get_rng_state(), before)


def test_time_can_be_left_out_and_is_where_the_horizon_is_infinite():
    assert models.as_environment(models.pendulum(), 2, time=False).reset()[0].shape == (2, 2)
    assert models.as_environment(models.ledge(), 2, time=False).reset()[0].shape == (2,)
    endless = models.as_environment(models.ledge(horizon=None, discount=0.9), 2)
    assert endless.reset()[0].shape == (2,)


def test_registered_models_pass_gymnasiums_own_check():
    assert models.register() == models.register()  # a second time is no warning
    for name in models.register():
        env = gymnasium.make(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a box is not bounded
            check_env(env.unwrapped, skip_render_check=True)
        env.close()


def test_a_simulated_environment_is_the_model_of_its_physics():
    pendulum = models.environment("Pendulum-v1", num_envs=4)
    model = models.pendulum(horizon=50)
    rolled = pendulum.simulate(lambda t, s: pendulum.prior(s), 200, seed=0)
    expected = model.simulate(lambda t, s: model.prior(s), 4000, seed=0).rewards.sum(1)
    returns = rolled.rewards[:, :50].sum(1)
    error = np.hypot(returns.std().item() / 200**0.5, expected.std().item() / 4000**0.5)
    assert returns.mean().item() == pytest.approx(expected.mean().item(), abs=4.5 * error)
    assert rolled.states.shape == (200, 201, 3)
    assert rolled.alive[:, :200].all()


def test_policies_take_an_environment_as_they_take_a_model():
    cart = models.environment("CartPole-v1", num_envs=4)
    for policy in (cai.NeuralPolicy(cart, hidden=(4,)), cai.RecurrentPolicy(cart, hidden=(4,))):
        rolled = cart.simulate(policy, 6, seed=0, scored=True)
        alive = rolled.alive[:, :-1]
        assert (rolled.rewards == alive.double()).all()
        scores = rolled.log_policy[alive].detach()
        assert torch.allclose(scores, torch.full_like(scores, np.log(0.5)), atol=0.2)
    again = cart.simulate(policy, 6, seed=0)
    assert torch.equal(again.rewards, rolled.rewards)


class Lights(gymnasium.Env):
    """One of six lights is on; the action 1 pays if it is in the first row, as 2 by 3 booleans."""

    observation_space = spaces.Box(0, 1, (2, 3), np.bool_)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.light = int(self.np_random.integers(6))
        return np.eye(6, dtype=bool)[self.light].reshape(2, 3), {}

    def step(self, action):
        pays = float(action == (self.light < 3))
        return np.zeros((2, 3), bool), pays, True, False, {}


def test_networks_see_images_of_booleans_flattened():
    """The best policy is known: each light has an answer of its own, as in a table."""
    gymnasium.register("Lights-v0", Lights, max_episode_steps=1)
    lights = models.environment("Lights-v0", temperature=0.5)
    seen, best = torch.eye(6).reshape(6, 2, 3), (torch.arange(6) < 3).long()
    how = {"num_envs": 32, "learning_rate": 1e-2, "hidden": (16,), "progress": False}
    policy = cai.NeuralPolicy(lights, hidden=(16,), stationary=True)
    learnt = [
        inference.soft_q(lights, steps=10_000, **how),
        inference.policy_gradient(lights, policy, steps=40_000, length=4, **how),
    ]
    for found in learnt:
        chosen = found.policy(0, seen).probs[torch.arange(6), best]
        assert torch.allclose(chosen, torch.sigmoid(torch.tensor(2.0)).to(chosen), atol=0.05)
    rolled = lights.simulate(learnt[0].policy, 3, seed=0)
    assert rolled.states.shape == (3, 2, 2, 3)
    assert rolled.states.dtype == torch.float32


def test_what_a_policy_gets_in_an_environment_is_simulated():
    cart = models.environment("CartPole-v1", num_envs=100, horizon=4)
    row = cai.compare(cart, {"prior": lambda t, s: cart.prior(s)})["prior"]
    assert row.expected_return == 4.0  # nothing falls within four steps
    assert row.elbo == pytest.approx(4.0)
    assert row.kl is None


def test_a_discount_terminates_in_evaluations_and_leaves_the_plain_return():
    cart = models.environment("CartPole-v1", discount=0.9, temperature=0.5)
    found = cai.evaluate(cart, lambda t, s: cart.prior(s), samples=400)
    lengths = found.trajectories.episode_returns
    assert found.episode_return == pytest.approx(lengths.mean().item())
    assert 18 < found.episode_return < 27  # the prior's 22
    expected = (1 - 0.9**lengths) / 0.1  # Σ γ^t over the steps of each episode
    error = np.hypot(found.expected_return_stderr, expected.std().item() / 20)
    assert found.expected_return == pytest.approx(expected.mean().item(), abs=4.5 * error)
    assert found.elbo == pytest.approx(found.expected_return / 0.5)  # the prior pays nothing
    model = models.cartpole(horizon=500, discount=0.9, temperature=0.5)
    twin = cai.evaluate(model, lambda t, s: model.prior(s), samples=4000)
    error = np.hypot(found.expected_return_stderr, twin.expected_return_stderr)
    assert found.expected_return == pytest.approx(twin.expected_return, abs=4.5 * error)
    assert twin.episode_return is None


def test_policies_are_compared_in_an_environment():
    cart = models.environment("CartPole-v1", temperature=1.0)
    leftwards = dist.Categorical(torch.tensor([0.9, 0.1]))
    report = cai.compare(
        cart, {"prior": lambda t, s: cart.prior(s), "left": lambda t, s: leftwards}
    )
    rows = report.rows
    assert rows["prior"].expected_return > rows["left"].expected_return + 5
    assert rows["left"].elbo < rows["left"].expected_return - 1
    # p(τ,O)/q(τ) = exp(R/α) ∏ p(a|s)/q(a|s): the unknown dynamics cancel.
    assert report.bracket.lower > rows["prior"].elbo


@pytest.mark.parametrize(
    "method",
    [
        cai.tabulate,
        cai.collapse,
        inference.posterior,
        inference.soft_values,
        inference.map_trajectory,
        inference.optimism_curve,
        inference.z_learning,
        inference.factorised_plan,
        cai.plot.graphical_model,
        lambda lake: inference.smc(lake, particles=3),
        lambda lake: models.as_environment(lake, 3),
        lambda lake: inference.fit(lake, cai.TabularPolicy(lake, stationary=True), progress=False),
    ],
)
def test_what_scores_steps_refuses_an_environment_and_names_learners(method):
    lake = models.environment("FrozenLake-v1")
    with pytest.raises(ValueError, match=r"a program, whose .* Environment.*inference\.soft_q"):
        method(lake)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Pendulum-v9"}, "name: expected an environment that Gymnasium can make"),
        ({"name": "Blackjack-v1"}, "observations: expected numbers 0 … n-1"),
        ({"name": "Pendulum-v1", "num_envs": 0}, "num_envs: expected"),
        ({"name": "Pendulum-v1", "temperature": -1.0}, "temperature: expected"),
        ({"name": "Pendulum-v1", "horizon": 2.5}, "horizon: expected"),
        (
            {"name": "Pendulum-v1", "wheels": 3},
            "options that Pendulum-v1 has, render_mode, g, got wheels",
        ),
    ],
)
def test_wrong_environments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.environment(**arguments)


def test_an_unbounded_box_of_actions_needs_a_prior():
    class Free(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,))
        action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))

    gymnasium.register("cai-test/Free-v0", Free, disable_env_checker=True)
    with pytest.raises(ValueError, match="action_prior: expected a bounded box"):
        models.environment("cai-test/Free-v0")


@pytest.mark.parametrize(
    "options", [{"terminates": True, "horizon": 3}, {"horizon": None, "time_limit": 3}]
)
def test_no_episode_is_longer_than_its_horizon_though_copies_fall_out_of_step(options):
    """A copy that is over is stepped once more, to begin anew, while others reach the end."""
    horizon = options.pop("horizon")
    model = models.gym("FrozenLake-v1", horizon=horizon, discount=0.7)
    envs = models.as_environment(model, 200, **options)
    envs.reset(seed=0)
    steps, longest = np.zeros(200, int), 0
    over = np.zeros(200, bool)
    for k in range(60):
        _, _, ended, cut, _ = envs.step(np.full(200, k % 4))
        steps = np.where(over, 0, steps + 1)
        over = ended | cut
        assert (steps <= 3).all()
        assert over[steps == 3].all()
        longest = max(longest, steps.max())
        assert not (over & (steps == 0)).any()
    assert longest == 3


@pytest.mark.parametrize(
    ("make", "actions", "message"),
    [
        (models.ledge, np.array([2, 0]), r"actions: expected whole numbers 0 … 1, got 2"),
        (models.ledge, np.array([-1, 0]), r"actions: expected whole numbers 0 … 1, got -1"),
        (models.ledge, np.array([0.5, 0]), r"actions: expected whole numbers 0 … 1, got float64"),
        (models.cartpole, np.array([5, 0]), r"actions: expected whole numbers 0 … 1, got 5"),
        (models.ledge, np.array([0]), r"actions: expected one for each copy, shape \[2\]"),
        (models.pendulum, np.zeros((2, 3)), r"actions: expected one for each copy, shape \[2, 1\]"),
        (models.pendulum, np.full((2, 1), np.nan), "actions: expected finite numbers"),
    ],
)
def test_actions_that_there_are_not(make, actions, message):
    envs = models.as_environment(make(horizon=5), 2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        envs.step(actions)


def test_an_action_that_the_prior_forbids_is_refused():
    P = np.full((2, 2, 2), 0.5)
    model = models.tabular(P, np.zeros((2, 2)), horizon=4, action_prior=[[1.0, 0.0], [1.0, 1.0]])
    envs = models.as_environment(model, 2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="action: expected one that action_prior allows, got 1 in"):
        envs.step(np.array([0, 1]))


@pytest.mark.parametrize("policy", [lambda t, s: "left", lambda t, s: dist.Normal(0.0, 1.0)])
def test_a_policy_of_something_else_is_refused_in_an_environment(policy):
    cart = models.environment("CartPole-v1")
    with pytest.raises(ValueError, match="policy: expected"):
        cart.simulate(policy, 3, seed=0)

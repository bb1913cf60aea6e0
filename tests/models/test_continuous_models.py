"""Pendulum, cart-pole, multi-goal and double integrator: against Gymnasium, and by hand."""

import dataclasses
import math

import gymnasium
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import nn

import cai
from cai import inference, models
from cai.models.continuous.multigoal import GOALS

MODELS = {
    "pendulum": models.pendulum,
    "cartpole": models.cartpole,
    "cartpole, continuous": lambda **k: models.cartpole(continuous=True, **k),
    "multigoal": models.multigoal,
    "multigoal, endless": lambda **k: models.multigoal(goal_reward=None, **k),
    "double integrator": models.double_integrator,
}
SMOOTH = [name for name in MODELS if name != "cartpole"]
SPREAD = {  # states that a trajectory may come to, not only those that it starts from
    "pendulum": [5.0, 6.0],
    "cartpole": [1.3, 10.0, 0.12, 4.0],
    "cartpole, continuous": [1.3, 10.0, 0.12, 4.0],
    "multigoal": [4.0, 4.0],
    "multigoal, endless": [4.0, 4.0],
    "double integrator": [2.0, 2.0, 1.0, 1.0],
}
SIZE = {name: len(spread) for name, spread in SPREAD.items()}


def states(name, *shape):
    return torch.randn(*shape, SIZE[name], dtype=torch.float64) * torch.tensor(SPREAD[name])


def actions(model, *shape):
    return model.prior(torch.zeros(())).sample(shape)


def mean(model, s, a):
    d = model.dynamics(s, a)
    return d.v if isinstance(d, dist.Delta) else d.mean


def paid(model, s, a):
    return model.rewards(s, a) + model.arrival_rewards(s, a, mean(model, s, a))


# Gymnasium's own dynamics, step by step


@pytest.mark.parametrize(
    ("gravity", "max_torque", "mass", "length"),
    [(10.0, 2.0, 1.0, 1.0), (9.81, 1.5, 1.0, 1.0), (10.0, 2.0, 0.6, 1.0), (9.0, 2.0, 1.3, 1.6)],
)
def test_pendulum_is_gymnasiums(gravity, max_torque, mass, length):
    env = gymnasium.make("Pendulum-v1", g=gravity, disable_env_checker=True).unwrapped
    env.max_torque, env.m, env.l = max_torque, mass, length
    model = models.pendulum(gravity=gravity, max_torque=max_torque, mass=mass, length=length)
    s, a = states("pendulum", 300), 3 * torch.randn(300, 1).double()
    assert (s[:, 0].abs() > math.pi).any()
    for i in range(300):
        env.state = s[i].numpy()
        _, reward, *_ = env.step(a[i].numpy())
        np.testing.assert_allclose(mean(model, s[i], a[i]), env.state, rtol=0, atol=1e-12)
        assert model.rewards(s[i], a[i]).item() == pytest.approx(reward, abs=1e-12)


def test_a_pendulum_episode_is_gymnasiums():
    env = gymnasium.make("Pendulum-v1", disable_env_checker=True)
    env.reset(seed=3)
    model = dataclasses.replace(
        models.pendulum(), initial=dist.Delta(torch.tensor(env.unwrapped.state), event_dim=1)
    )
    path = model.simulate(lambda t, s: model.prior(s), 1, seed=0)
    total, steps, over = 0.0, 0, False
    while not over:
        observation, reward, _, over, _ = env.step(path.actions[0, steps].numpy())
        total, steps = total + reward, steps + 1
    assert steps == model.horizon
    assert path.returns.item() == pytest.approx(total, abs=1e-6)
    angle, speed = path.states[0, -1]
    np.testing.assert_allclose([angle.cos(), angle.sin(), speed], observation, atol=1e-5)
    unit = gymnasium.make("Pendulum-v1").reset(options={"x_init": 0.0, "y_init": 0.0})[0]
    np.testing.assert_allclose(unit, [1, 0, 0])  # θ = 0 is upright there, too


def test_starts_are_gymnasiums():
    pendulum, cart = models.pendulum().initial.base_dist, models.cartpole().initial.base_dist
    np.testing.assert_allclose(pendulum.high, [math.pi, 1.0])
    np.testing.assert_allclose(cart.high, [0.05] * 4)
    assert torch.equal(pendulum.low, -pendulum.high)
    assert torch.equal(cart.low, -cart.high)
    drawn = [gymnasium.make("CartPole-v1").reset(seed=i)[0] for i in range(50)]
    assert 0.04 < np.abs(drawn).max() < 0.05


def cart(state):
    env = gymnasium.make("CartPole-v1", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    env.state = state.numpy()
    return env


def test_cartpole_is_gymnasiums():
    model = models.cartpole()
    s, a = states("cartpole", 400), actions(model, 400)
    s = s[model.rewards(s, a) == 1]
    fell = 0
    for i in range(len(s)):
        env = cart(s[i])
        _, reward, over, _, _ = env.step(int(a[i]))
        s_next = mean(model, s[i], a[i])
        np.testing.assert_allclose(s_next, env.state, rtol=0, atol=1e-12)
        assert model.rewards(s[i], a[i]) == reward == 1
        assert model.rewards(s_next, a[i]) == (0 if over else 1)
        fell += over
    assert len(s) > 200
    assert 10 < fell < len(s) - 10


def test_cartpole_episodes_are_gymnasiums():
    """Their lengths, too: what is paid is the number of steps until the pole has fallen."""
    model = models.cartpole(horizon=200)

    def lean(t, s):  # push under the pole; the spin counts for too much, so that it falls
        right = s[..., 2] + 2 * s[..., 3] > 0
        return dist.Categorical(torch.stack([~right, right], -1).double())

    path = model.simulate(lean, 20, seed=1)
    lengths = []
    for i in range(20):
        env, over, steps = cart(path.states[i, 0]), False, 0
        while not over and steps < 200:
            _, _, over, _, _ = env.step(int(path.actions[i, steps]))
            steps += 1
            np.testing.assert_allclose(path.states[i, steps], env.state, rtol=0, atol=1e-9)
        lengths.append(steps)
    assert path.returns.tolist() == lengths
    assert min(lengths) < 200


def test_a_force_of_ten_newtons_is_left_and_right():
    discrete, force = models.cartpole(), models.cartpole(continuous=True)
    s, a = states("cartpole", 200), actions(discrete, 200)
    pushed = (20.0 * a - 10.0).double().unsqueeze(-1)
    stands = ~fallen(s)
    same = mean(discrete, s, a) == mean(force, s, pushed)
    assert torch.equal(same.all(-1), stands)
    assert 20 < stands.sum() < 180
    assert torch.equal(mean(force, s, pushed), mean(force, s, 1.7 * pushed))  # clipped
    edge = torch.tensor([2.4, 0.3, -math.radians(12), 0.3]).double()
    assert force.rewards(0 * edge, pushed[0]) == 1
    assert force.rewards(edge, pushed[0]).item() == pytest.approx(math.exp(-1))
    assert force.rewards(2 * edge, pushed[0]).item() == pytest.approx(math.exp(-4))


# The environment that Haarnoja and others published


def published_step(position, action):
    """(next position, reward, whether the episode is over), in plain numbers."""
    action = [min(max(x, -1.0), 1.0) for x in action]
    position = [min(max(p + x, -7.0), 7.0) for p, x in zip(position, action, strict=True)]
    distances = [math.dist(position, goal) for goal in ((5, 0), (-5, 0), (0, 5), (0, -5))]
    reward = -30 * sum(x * x for x in action) - min(distances) ** 2
    over = min(distances) < 1
    return position, reward + 10 * over, over


def test_multigoal_is_the_published_environment():
    model, endless = models.multigoal(), models.multigoal(goal_reward=None)
    s, a = states("multigoal", 400), 0.8 * torch.randn(400, 2).double()
    before = torch.cdist(s, GOALS).amin(-1) < 1
    seen = 0
    for i in (~before).nonzero().flatten().tolist():
        s_next, reward, over = published_step(s[i].tolist(), a[i].tolist())
        assert mean(model, s[i], a[i]).tolist() == pytest.approx(s_next, abs=1e-12)
        assert paid(model, s[i], a[i]).item() == pytest.approx(reward, abs=1e-9)
        assert paid(endless, s[i], a[i]).item() == pytest.approx(reward - 10 * over, abs=1e-9)
        seen += over
    assert seen > 10
    # An episode that is over: the mass lies in the goal, and nothing is paid.
    assert before.sum() > 10
    there = torch.cdist(mean(model, s[before], a[before]), GOALS).amin(-1)
    assert not there.any()
    assert not paid(model, s[before], a[before]).any()
    assert paid(endless, s[before], a[before]).all()


@pytest.mark.parametrize("turn", [[[0.0, -1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, -1.0]]])
def test_no_goal_is_better_than_another(turn):
    turn, model = torch.tensor(turn, dtype=torch.float64), models.multigoal()
    s, a = states("multigoal", 200), actions(model, 200)
    torch.testing.assert_close(mean(model, s @ turn, a @ turn), mean(model, s, a) @ turn)
    torch.testing.assert_close(paid(model, s @ turn, a @ turn), paid(model, s, a))


# The end of an episode is absorbing, under noise as well


@pytest.mark.parametrize("name", ["cartpole", "multigoal"])
def test_what_is_over_stays_over(name):
    model = MODELS[name](horizon=100, noise=0.1, temperature=1.0)
    path = model.simulate(lambda t, s: model.prior(s), 500, seed=0)
    s = path.states
    over = torch.cdist(s, GOALS).amin(-1) < 1 if name == "multigoal" else fallen(s)
    assert over.any(-1).double().mean() > 0.2
    assert torch.equal(over.cummax(-1).values, over)
    assert not path.rewards[over[:, :-1]].any()


def fallen(s):
    return (s[..., 0].abs() > 2.4) | (s[..., 2].abs() > math.radians(12))


# Between no obstacles the double integrator is linear-Gaussian, with an exact answer


def test_without_obstacles_it_is_linear_gaussian():
    T, dt = 12, 0.1
    model = models.double_integrator(horizon=T, temperature=0.7, noise=0.05, obstacles=())
    eye, zero = torch.eye(2).double(), torch.zeros(2, 2).double()
    linear = models.linear_gaussian(
        torch.cat([torch.cat([eye, dt * eye], 1), torch.cat([zero, eye], 1)]),
        torch.cat([0.5 * dt**2 * eye, dt * eye]),
        horizon=T,
        temperature=0.7,
        noise=0.05**2 * torch.eye(4),
        Q=torch.block_diag(dt * eye, zero),
        q=[dt * 3, 0, 0, 0],
        Q_final=10 * torch.eye(4),
        q_final=[30, 0, 0, 0],
        initial_mean=[-3, 0, 0, 0],
        initial_covariance=0.1**2 * torch.eye(4),
        action_prior=dist.MultivariateNormal(torch.zeros(2), 9 * torch.eye(2)),
    )
    constant = -(T * dt * 0.5 * 9 + 5 * 9) / 0.7  # the squares of the goal, in nats
    trace = poutine.trace(model).get_trace()
    values = {name: site["value"] for name, site in trace.iter_stochastic_nodes()}
    same = poutine.trace(poutine.condition(linear, values)).get_trace()
    assert trace.log_prob_sum().item() == pytest.approx(same.log_prob_sum().item() + constant)
    best = inference.soft_values(linear)
    found = cai.evaluate(model, best.policy, samples=2000)
    assert abs(found.elbo - best.elbo - constant) < 5 * found.elbo_stderr
    assert found.elbo_stderr < 1


def test_obstacles_cost_what_they_say():
    model = models.double_integrator(obstacles=[[1.0, 2.0, 0.5]], obstacle_cost=8.0)
    free = models.double_integrator(obstacles=())
    at = torch.tensor([[1.0, 2.0, 0, 0], [1.3, 2.4, 5, 0], [1.0, 3.5, 0, 0]]).double()
    cost = free.rewards(at, at[:, :2]) - model.rewards(at, at[:, :2])
    np.testing.assert_allclose(cost, 0.8 * np.exp(-0.5 * np.array([0, 1, 9])), atol=1e-12)


# The program's log density, and its derivatives


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("name", MODELS)
def test_the_log_density_by_hand(name, noise):
    model = MODELS[name](horizon=4, temperature=2.5, noise=noise)
    trace = poutine.trace(model).get_trace()
    s = [trace.nodes[f"s_{t}"]["value"] for t in range(5)]
    a = [trace.nodes[f"a_{t}"]["value"] for t in range(4)]
    volume = {"pendulum": -math.log(4), "cartpole": -math.log(2)}
    volume |= {"cartpole, continuous": -math.log(20)}
    log_p = {"pendulum": -math.log(4 * math.pi), "cartpole": -4 * math.log(0.1)}
    log_p |= {"cartpole, continuous": -4 * math.log(0.1)}
    start = torch.tensor([-3.0, 0, 0, 0]) if name == "double integrator" else torch.zeros(2)
    total = log_p[name] if name in log_p else normal(s[0] - start, 0.1)
    for t in range(4):
        prior = normal(a[t], 3.0) if name == "double integrator" else -2 * math.log(2)
        total += volume.get(name, prior)
        step = s[t + 1] - mean(model, s[t], a[t])
        total += normal(step, noise) if noise else 0.0
        total += model.rewards(s[t], a[t]) / 2.5
        total += model.arrival_rewards(s[t], a[t], s[t + 1]) / 2.5
    total += model.final_rewards(s[4]) / 2.5
    assert trace.log_prob_sum().item() == pytest.approx(total.item(), abs=1e-9)
    assert trace.nodes["s_4"]["value"].dtype == torch.float64


def normal(x, sd):
    return (-0.5 * (x / sd) ** 2 - math.log(sd) - 0.5 * math.log(2 * math.pi)).sum().item()


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_by_differences(name, noise):
    """Of the return and of the last state, through three steps and their noise."""
    model = MODELS[name](horizon=3, noise=noise)

    def run(s, a):
        torch.manual_seed(1)
        total = 0.0
        for t in range(3):
            s_next = model.dynamics(s, a[:, t]).rsample()
            total = total + model.rewards(s, a[:, t])
            total = total + model.arrival_rewards(s, a[:, t], s_next)
            s = s_next
        return total + model.final_rewards(s), s

    s = 0.5 * states(name, 6)
    a = 0.9 * actions(model, 6, 3)
    assert torch.autograd.gradcheck(run, (s.requires_grad_(), a.requires_grad_()))


@pytest.mark.parametrize("name", MODELS)
def test_each_element_on_its_own(name):
    """Wherever it is: the model itself is only checked near its start."""
    model = MODELS[name](noise=0.02)
    s, a = states(name, 5, 8), actions(model, 5, 8)
    s_next, d = states(name, 5, 8), model.dynamics(s, a)
    assert d.batch_shape == (5, 8)
    families = {
        "dynamics": lambda s, a, s_next: model.dynamics(s, a).log_prob(s_next),
        "reward": lambda s, a, s_next: model.rewards(s, a),
        "arrival_reward": model.arrival_rewards,
        "final_reward": lambda s, a, s_next: model.final_rewards(s),
    }
    for family in families.values():
        together = family(s, a, s_next).expand(5, 8)
        for i in range(5):
            alone = torch.stack([family(s[i, j], a[i, j], s_next[i, j]) for j in range(8)])
            torch.testing.assert_close(alone, together[i])
    # One start for many plans, and one plan for many starts.
    assert model.dynamics(s[0, 0], a).batch_shape == (5, 8)
    assert model.dynamics(s, a[0, 0]).batch_shape == (5, 8)


@pytest.mark.parametrize("name", ["pendulum", "cartpole", "double integrator"])
def test_mirror_images(name):
    model = MODELS[name]()
    s, a = states(name, 100), actions(model, 100)
    sign = torch.tensor([1.0, -1] if name == "double integrator" else [-1.0]).double()
    flip = sign.repeat(SIZE[name] // len(sign))
    turned = 1 - a if name == "cartpole" else a * sign
    torch.testing.assert_close(mean(model, s * flip, turned), mean(model, s, a) * flip)
    torch.testing.assert_close(paid(model, s * flip, turned), paid(model, s, a))


@pytest.mark.parametrize(
    ("name", "horizon"),
    [("pendulum", 25), ("cartpole, continuous", 80), ("multigoal, endless", 30)],
)
def test_returns_do_not_jump(name, horizon):
    """So that the mean of the derivatives is the derivative of the mean, for a large step, too.

    An end of the episode at 12° would make the former half of the latter.
    """
    model = MODELS[name](horizon=horizon)
    n, m = SIZE[name], model.prior(torch.zeros(())).event_shape[0]
    bound = model.prior(torch.zeros(())).base_dist.high
    gain = torch.tensor([0.05, 0.1, 3.0, 0.6] if n == 4 else [[0.3], [0.1]]).double()
    gain = gain.reshape(n, -1).expand(n, m)

    def mean_return(scale):
        torch.manual_seed(0)
        s, total = model.initial.sample((500,)), 0.0
        for _ in range(model.horizon):
            inner = scale * (s @ gain) + torch.randn(500, m, dtype=torch.float64)
            a = bound * inner.tanh()
            s_next = model.dynamics(s, a).rsample()
            total = total + model.rewards(s, a) + model.arrival_rewards(s, a, s_next)
            s = s_next
        return total.mean()

    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(mean_return(one), one)
    with torch.no_grad():
        rise = (mean_return(1.002) - mean_return(0.998)) / 0.004
    assert slope.item() == pytest.approx(rise.item(), rel=0.02)


# Under a Gaussian policy


class Squashed(nn.Module):
    """tanh of a Gaussian, linear in the state, on the box of the prior; or the Gaussian itself."""

    def __init__(self, model):
        super().__init__()
        prior = model.prior(torch.zeros(()))
        n, m = model.initial.event_shape[0], prior.event_shape[0]
        self.gain = nn.Parameter(0.1 * torch.randn(n, m, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.full((m,), -0.5, dtype=torch.float64))
        self.bound = getattr(prior.base_dist, "high", None)

    def forward(self, t, s):
        inner = dist.Normal(s @ self.gain, self.log_scale.exp())
        if self.bound is None:
            return inner.to_event(1)
        squash = [
            dist.transforms.TanhTransform(cache_size=1),
            dist.transforms.AffineTransform(0.0, self.bound, cache_size=1),
        ]
        return dist.TransformedDistribution(inner, squash).to_event(1)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_gaussian_policy(name):
    """One trajectory of Trace_ELBO by hand; its gradient by differences; and its mean."""
    model = MODELS[name](horizon=4, noise=0.02, temperature=3.0)
    policy = Squashed(model)
    guide = model.rollout(policy)

    def loss():
        torch.manual_seed(5)
        return Trace_ELBO().differentiable_loss(model, guide)

    by_hand = one_elbo(model, policy)
    assert -loss().item() == pytest.approx(by_hand.item(), abs=1e-9)
    gradients = torch.autograd.grad(loss(), list(policy.parameters()))
    for parameter, gradient in zip(policy.parameters(), gradients, strict=True):
        with torch.no_grad():
            parameter[(0,) * parameter.dim()] += 1e-6
            up = loss().item()
            parameter[(0,) * parameter.dim()] -= 2e-6
            down = loss().item()
            parameter[(0,) * parameter.dim()] += 1e-6
        slope = gradient[(0,) * gradient.dim()].item()
        assert slope == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-4)
    found = cai.evaluate(model, policy, samples=400)
    torch.manual_seed(6)
    each = torch.stack([one_elbo(model, policy, seed=None) for _ in range(60)])
    error = math.hypot(found.elbo_stderr, each.std().item() / 60**0.5)
    assert abs(found.elbo - each.mean().item()) < 5 * error
    assert found.expected_return_stderr > 0


@torch.no_grad()
def one_elbo(model, policy, seed=5):
    """Σ rewards/α - Σ log q(a|s)/p(a|s) of one trajectory of the policy."""
    if seed is not None:
        torch.manual_seed(seed)
    s, total = model.initial.sample(), 0.0
    for t in range(model.horizon):
        q = policy(t, s)
        a = q.sample()
        s_next = model.dynamics(s, a).sample()
        total += (model.rewards(s, a) + model.arrival_rewards(s, a, s_next)) / model.temperature
        total += model.prior(s).log_prob(a) - q.log_prob(a)
        s = s_next
    return total + model.final_rewards(s) / model.temperature


def test_a_box_by_torchs_own_bijection():
    """Its last transform is affine, and torch says that it reaches all numbers."""
    model = models.pendulum(horizon=5)
    squash = torch.distributions.biject_to(model.action_prior.base_dist.support)
    logistic = dist.TransformedDistribution(dist.Normal(torch.zeros(1).double(), 1.7), [squash])
    assert logistic.support is torch.distributions.constraints.real
    found = cai.evaluate(model, lambda t, s: logistic.to_event(1), samples=500)
    assert found.expected_return - 2 < found.elbo < found.expected_return


def test_a_normal_prior_in_place_of_the_box():
    """Torques beyond the limit are clipped, so that an unbounded policy and prior fit, too."""
    wide = dist.Normal(torch.zeros(1).double(), 2.0).to_event(1)
    model = dataclasses.replace(models.pendulum(horizon=5), action_prior=wide)
    found = cai.evaluate(model, lambda t, s: wide, samples=500)
    assert found.elbo == pytest.approx(found.expected_return)
    assert found.elbo > -5 * 16.3


def test_they_are_not_tabulated():
    for name in MODELS:
        with pytest.raises(ValueError, match="enumeration needs finitely many"):
            cai.tabulate(MODELS[name](horizon=2))


# Arguments that are wrong


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("pendulum", {"noise": [0.1, 0.1, 0.1]}, "noise: expected one standard deviation, or 2: o"),
        ("pendulum", {"noise": "loud"}, "noise: expected one standard deviation, or 2: of θ, θ̇"),
        ("pendulum", {"noise": -0.1}, "noise: expected finite numbers ≥ 0, got -0.1"),
        ("pendulum", {"noise": math.nan}, "noise: expected finite numbers"),
        ("pendulum", {"noise": (0.0, 0.1)}, "noise: expected all deviations zero or all above"),
        ("pendulum", {"max_torque": 0.0}, "max_torque: expected a finite number above 0"),
        ("pendulum", {"gravity": math.inf}, "gravity: expected a finite number above 0"),
        ("pendulum", {"horizon": 0}, "horizon: expected a whole number"),
        ("cartpole", {"noise": 0.2}, "noise: expected finite numbers ≥ 0 and at most 0.1, got 0.2"),
        (
            "cartpole",
            {"continuous": True, "noise": -1},
            "noise: expected finite numbers ≥ 0, got -1",
        ),
        ("cartpole", {"temperature": 0}, "temperature: expected a finite number above 0"),
        ("multigoal", {"goal_reward": math.inf}, r"goal_reward: expected a number below \+inf"),
        ("multigoal", {"noise": 1}, "noise: expected finite numbers ≥ 0 and at most 0.1"),
        ("multigoal", {"discount": 2}, r"discount: expected a number in \(0, 1\]"),
        ("double_integrator", {"acceleration": -1}, "acceleration: expected a finite number above"),
        ("double_integrator", {"obstacle_cost": 0}, "obstacle_cost: expected a finite number abov"),
        ("double_integrator", {"obstacles": [1, 2, 3]}, "obstacles: expected rows of three"),
        ("double_integrator", {"obstacles": [[1, 2]]}, "obstacles: expected rows of three"),
        ("double_integrator", {"obstacles": [[1, math.nan, 3]]}, "obstacles: expected rows of th"),
        ("double_integrator", {"obstacles": "pillars"}, "obstacles: expected rows of three"),
        ("double_integrator", {"obstacles": [[1, 2, 0]]}, "obstacles: expected radii above 0"),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(models, name)(**arguments)

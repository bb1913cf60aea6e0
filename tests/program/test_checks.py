"""What is wrong is said once: where, what was expected, what came, and what to try."""

import dataclasses
import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import continuous

import cai
import cai.inference

S, A = 4, 3
NEXT = torch.arange(S * A).reshape(S, A) % S


def build(**changes):
    arguments = {
        "initial": dist.Categorical(torch.ones(S)),
        "dynamics": lambda s, a: dist.Delta(NEXT[s, a]),
        "reward": lambda s, a: -1.0 * s,
        "action_prior": dist.Categorical(torch.ones(A)),
        "horizon": 5,
    }
    return cai.TrajectoryModel(**(arguments | changes))


def refused(*parts, **changes):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the parts say which
        build(**changes)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message or "raised" in message


def branching(s, a):
    return dist.Delta(s if s > 2 else NEXT[s, a])


def on_the_whole_batch(s, a):
    return dist.Delta(NEXT[s, a] if (s > 2).all() else s)


def reshaping(s, a):
    return dist.Delta(NEXT[s, a].reshape(-1).repeat(2))


def flattening(s, a):
    return dist.Delta(NEXT[s, a].reshape(-1))


def in_a_plate(s, a):
    with pyro.plate("each", 4):
        pyro.sample("slip", dist.Bernoulli(0.5))
    return dist.Delta(s)


def with_a_factor(s, a):
    pyro.factor("prize", -1.0 * s)
    return dist.Delta(s)


def observing(s, a):
    pyro.sample("seen", dist.Bernoulli(0.5), obs=torch.tensor(1.0))
    return dist.Delta(s)


def only_sometimes(s, a):
    if s.dim() == 0:
        return dist.Delta(s)
    return dist.Delta(torch.where(pyro.sample("slip", dist.Bernoulli(0.5)).bool(), s, s))


@pytest.mark.parametrize(
    ("dynamics", "parts"),
    [
        (branching, ["dynamics: called with tensors of shape [6]", "torch.where"]),
        (on_the_whole_batch, ["a scalar call gives another distribution", "torch.where"]),
        (only_sometimes, ["a scalar call gives another distribution"]),
        (reshaping, ["batch shape [12] does not broadcast", "shape [6]", "instead of reshaping"]),
        (flattening, ["batch shape [12] does not broadcast", "of shape [6, 2]"]),
        (in_a_plate, ["there is a plate 'each'", "remove the plate"]),
        (with_a_factor, ["site 'prize' is observed or a factor", "arrival_reward"]),
        (observing, ["site 'seen' is observed or a factor"]),
        (lambda s, a: NEXT[s, a], ["expected a distribution to be returned", "dist.Delta"]),
        (lambda s, a: dist.Normal(torch.zeros(3), 1).to_event(1), ["event shape []", "to_event"]),
        (lambda s: dist.Delta(s), ["raised TypeError"]),
        ("down", ["dynamics: expected a function (s, a) -> distribution, got 'down'"]),
    ],
)
def test_dynamics(dynamics, parts):
    refused(*parts, dynamics=dynamics)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"reward": lambda s, a: torch.zeros(7)}, ["reward: batch shape [7]", "[6]"]),
        ({"reward": lambda s, a: s.sum() * -1.0}, ["reward: for the state", "scalar call gives"]),
        ({"reward": math.nan}, ["reward: expected numbers below +inf", "nan"]),
        ({"reward": lambda s, a: 1.0 / (s - 1)}, ["reward: expected numbers below", "inf"]),
        ({"arrival_reward": math.inf}, ["arrival_reward: expected numbers below"]),
        ({"final_reward": lambda s: torch.log(s - 1.0)}, ["final_reward: expected numbers below"]),
        ({"reward": lambda s, a: None}, ["reward: "]),
        ({"horizon": 0}, ["horizon: expected a whole number of at least 1, got 0"]),
        ({"horizon": 2.5}, ["horizon: expected a whole number of at least 1, got 2.5"]),
        ({"temperature": -1}, ["temperature: expected a finite number above 0, got -1"]),
        ({"temperature": "hot"}, ["temperature: expected a finite number above 0, got 'hot'"]),
        ({"discount": 0.0}, ["discount: expected a number in (0, 1], got 0.0"]),
        ({"discount": "much"}, ["discount: expected a number in (0, 1], got 'much'"]),
        ({"optimality": "maybe"}, ["optimality:", "got 'maybe'"]),
        (
            {"initial": 2},
            ["got 2; to start in state 2 take dist.Categorical(", "one_hot(torch.tensor(2)"],
        ),
        ({"initial": [0.5, 0.5]}, ["got [0.5, 0.5]", "dist.Categorical(torch.tensor([…]))"]),
        ({"initial": "start"}, ["got 'start'", "dist.Categorical(torch.tensor([1.0, 0.0]))"]),
        ({"action_prior": 3}, ["action_prior: expected a Pyro distribution or a function"]),
        (
            {"reward": lambda s, a: 1.0 * s, "optimality": "bernoulli"},
            ["largest is 3", "at least 3"],
        ),
    ],
)
def test_arguments(changes, parts):
    refused(*parts, **changes)


def test_a_reward_is_no_place_to_sample():
    def reward(s, a):
        return -pyro.sample("luck", dist.Bernoulli(0.5)) + 0.0 * s

    refused("reward", "'luck'", reward=reward)


def test_minus_infinity_is_a_reward():
    build(reward=lambda s, a: torch.where(a == 0, -math.inf, -1.0))


def test_a_discount_makes_shifting_rewards_no_remedy():
    refused(
        "changes the problem", reward=1.0, arrival_reward=None, optimality="bernoulli", discount=0.9
    )


def test_building_draws_nothing_and_leaves_no_sites():
    state = torch.random.get_rng_state()

    def dynamics(s, a):
        slip = pyro.sample("slip", dist.Bernoulli(0.5)).bool()
        return dist.Delta(torch.where(slip, s, NEXT[s, a]))

    def program():
        build(dynamics=dynamics)

    assert not pyro.poutine.trace(program).get_trace().stochastic_nodes
    assert torch.equal(state, torch.random.get_rng_state())


def test_continuous_dynamics_are_checked_too():
    continuous()

    def centred(s, a):
        return dist.Normal(s - s.mean(), 0.1)

    with pytest.raises(ValueError, match="a scalar call gives another distribution"):
        continuous(
            initial=dist.Normal(0.0, 1.0), dynamics=centred, reward=lambda s, a: -(s**2) - a**2
        )


def test_networks_may_look_at_state_and_action_together():
    """Both come in one batch shape, so that they can be concatenated."""
    layer = torch.nn.Linear(3, 2)

    def dynamics(s, a):
        return dist.Normal(layer(torch.cat([s, a.unsqueeze(-1)], -1)), 0.1).to_event(1)

    model = continuous(dynamics=dynamics)
    assert model.simulate(lambda t, s: model.prior(s), 3).states.shape == (3, 6, 2)


def test_distributions_of_torch_are_refused_wherever_they_come_from():
    """Scored as torch does, with a clamp at 1e-7, the impossible would become possible."""
    rows = torch.eye(S)

    def latent(s, a):
        pyro.sample("slip", torch.distributions.Bernoulli(torch.zeros(())))
        return dist.Delta(s)

    def of_torch(s, a=None):
        return torch.distributions.Categorical(rows[s])

    for changes in (
        {"initial": torch.distributions.Categorical(torch.ones(S))},
        {"dynamics": of_torch},
        {"dynamics": latent},
        {"action_prior": of_torch},
    ):
        refused("torch.distributions", "pyro.distributions", **changes)
    with pytest.raises(ValueError, match=r"take pyro\.distributions\.Categorical"):
        cai.evaluate(build(), lambda t, s: torch.distributions.Categorical(torch.ones(A)))


def test_a_prior_is_held_against_its_scalar_calls():
    def collective(s):
        sure = torch.tensor([0.98, 0.01, 0.01])
        return dist.Categorical(sure if (s == 0).all() else torch.ones(A))

    refused("action_prior", "state 0", "torch.where", action_prior=collective)
    refused("action_prior", "a distribution to be returned", action_prior=lambda s: torch.ones(A))


@pytest.mark.parametrize("name", ["reward", "arrival_reward", "final_reward"])
def test_an_array_is_no_reward(name):
    refused(name, "a function, or a number", "[4, 3]", "lambda", **{name: torch.ones(S, A)})
    refused(name, "a function, or a number", "much", **{name: "much"})


def test_a_reward_must_be_given():
    refused("reward", "a function, or a number", "None", reward=None)


def test_a_batch_is_no_initial_distribution():
    refused("initial", "batch shape [2]", initial=dist.Categorical(torch.ones(2, S)))


def test_a_number_in_quotes_is_no_number():
    refused("temperature", "'0.5'", temperature="0.5")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"states": ("a", "b")}, "layout.states: expected one entry for each of 4 states, got 2"),
        ({"actions": ("a",)}, "layout.actions: expected one entry for each of 3 actions, got 1"),
        ({"map": ("....",)}, "layout: expected cells with a map"),
        ({"map": ("..", "..."), "cells": 4 * ((0, 0),)}, "layout.map: expected rows of one length"),
        (
            {"map": ("..", ".."), "cells": (*(3 * ((0, 0),)), (2, 0))},
            "layout.cells: expected",
        ),
    ],
)
def test_a_layout_that_does_not_fit(layout, message):
    refused(message, layout=cai.Layout(**layout))


def test_positive_rewards_are_no_bernoulli_where_only_sampling_is_left():
    walk = continuous(optimality="bernoulli", reward=lambda s, a: -(a**2))
    prior = lambda t, s: walk.prior(s)  # noqa: E731
    assert cai.evaluate(walk, prior, samples=5).elbo < 0
    with pytest.raises(ValueError, match='"bernoulli" needs rewards ≤ 0'):
        continuous(optimality="bernoulli", reward=lambda s, a: 3.0 + 0 * a)
    paid = continuous(optimality="bernoulli", arrival_reward=lambda s, a, n: 2.0 + a**2)
    with pytest.raises(ValueError, match='"bernoulli" needs rewards ≤ 0'):
        cai.evaluate(paid, prior, samples=5)


def test_a_temperature_at_which_rewards_overflow():
    with pytest.raises(ValueError, match="temperature: expected one at which reward/temperature"):
        cai.tabulate(build(temperature=1e-320))


def test_two_sites_of_one_name():
    def twice(s, a):
        pyro.sample("slip", dist.Bernoulli(0.5))
        pyro.sample("slip", dist.Bernoulli(0.5))
        return dist.Delta(s)

    refused("dynamics: two sites are called 'slip'", "rename", dynamics=twice)


FAMILIES = (
    cai.TabularPolicy,
    cai.NeuralPolicy,
    cai.Plan,
    cai.GaussianPlan,
    cai.HistoryPolicy,
    functools.partial(cai.TabularPolicy, observe=cai.blind),
    cai.RecurrentPolicy,
    cai.LinearGaussianPolicy,
    cai.DynamicsGuide,
    lambda model: cai.LatentPolicy(model, dist.Categorical(torch.ones(2))),
)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model", [None, "ledge", cai.tabulate(build())])
def test_what_is_no_model(family, model):
    with pytest.raises(ValueError, match=r"^model: expected a (cai|linear)"):
        family(model)


def test_no_model_to_fit_or_evaluate():
    policy = cai.TabularPolicy(build())
    for what in (cai.inference.fit, cai.evaluate):
        with pytest.raises(ValueError, match=r"^model: expected a cai.TrajectoryModel"):
            what(None, policy)
    with pytest.raises(ValueError, match=r"^model: expected a linear-Gaussian one"):
        cai.LinearGaussianPolicy(build())


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (None, "got NoneType"),
        (lambda s: dist.Categorical(torch.ones(A)), "takes 1 positional argument"),
        (lambda t, s: dist.Categorical(logits=torch.zeros(2, S, A)[t, s]), "index 2 is out of"),
        (cai.TabularPolicy, "got the class TabularPolicy"),
    ],
)
def test_policies_that_cannot_be_called_in_a_simulation(policy, message):
    with pytest.raises(ValueError, match=rf"^policy: .*{message}"):
        build().simulate(policy, 3)


def test_plans_and_tables_for_fewer_steps():
    model, longer = continuous(), dataclasses.replace(continuous(), horizon=9)
    for plan in (cai.Plan(model), cai.GaussianPlan(model)):
        with pytest.raises(ValueError, match=r"^policy: .* that takes step \d .* model"):
            cai.inference.fit(longer, plan, steps=1, samples=2)
    longer = build(horizon=6)
    with pytest.raises(ValueError, match=r"^policy: expected a function that takes step 5"):
        cai.inference.fit(longer, cai.TabularPolicy(build()), estimator="score", steps=1)


def test_a_policy_that_takes_no_tensor_of_steps():
    class Late(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.zeros(A))

        def forward(self, t, s):
            return dist.Categorical(logits=self.logits if t > 2 else torch.zeros(A))

    with pytest.raises(ValueError, match=r"^policy: .* takes steps of shape \[2, 5\] and"):
        cai.inference.fit(build(), Late(), estimator="score", steps=1, samples=2)


def test_networks_of_no_shape():
    for hidden in (8, None, "x", (0,), (2.5,), (-1,)):
        with pytest.raises(ValueError, match="hidden: expected"):
            cai.NeuralPolicy(build(), hidden)
        with pytest.raises(ValueError, match="hidden: expected"):
            cai.RecurrentPolicy(build(), hidden=hidden)
    for head in ("full", cai.GaussianHead, 3):
        with pytest.raises(ValueError, match="head: expected a head, got"):
            cai.NeuralPolicy(continuous(), head=head)
    policy = cai.NeuralPolicy(continuous(), network=torch.nn.Linear(3, 7))
    with pytest.raises(ValueError, match="network: expected 2 outputs, what the head takes, got"):
        cai.evaluate(continuous(), policy, samples=2)


# What is told to somebody who made a mistake that is easily made

TWO = torch.zeros(2)


def on_a_plane(**changes):
    """A point on a plane, which is pushed by a number."""
    given = {
        "initial": dist.Normal(TWO, 1.0).to_event(1),
        "action_prior": lambda s: dist.Normal(0.0, 1.0),
        "dynamics": lambda s, a: dist.Normal(s, 0.1).to_event(1),
        "reward": lambda s, a: -(s**2).sum(-1),
        "horizon": 3,
    }
    return cai.TrajectoryModel(**given | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"dynamics": lambda s, a: dist.Normal(s, 0.1)},
            r"dynamics: .* end .* with \.to_event\(1\)",
        ),
        ({"action_prior": lambda s: dist.Normal(s, 1.0)}, r"action_prior: .* \.to_event\(1\)"),
        ({"reward": lambda s, a: -(s**2)}, r"reward: .* sum over the axis of a vector"),
        ({"reward": lambda s: -1.0}, r"reward: .* TypeError: .*; it is called as reward\(s, a\)"),
        ({"reward": lambda s, a, n: -1.0}, r"next state is arrival_reward\(s, a, s_next\)"),
        ({"action_prior": lambda t, s: dist.Normal(0.0, 1.0)}, r"is called as action_prior\(s\)"),
        ({"dynamics": lambda t, s, a: dist.Delta(s)}, r"it is called as dynamics\(s, a\)"),
        ({"reward": lambda s, a: s[..., 0] / 0}, r"reward: expected .* got -?inf in the state \["),
        ({"horizon": 0}, "horizon: expected .* got 0; None is an infinite one"),
        ({"temperature": "0.5"}, r"temperature: .* got '0.5'; a number, and not text"),
    ],
)
def test_a_common_mistake_with_vectors(changes, words):
    with pytest.raises(ValueError, match=words):
        on_a_plane(**changes)


TABLE = torch.full((3, 2, 3), 1 / 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dynamics": lambda s, a: dist.Categorical(TABLE[a, s])}, "look at the order of the axes"),
        ({"initial": dist.Categorical(torch.ones(4))}, "at how many rows it has"),
        ({"action_prior": lambda s: dist.Bernoulli(0.5)}, "take a Categorical, or convert them"),
        ({"dynamics": lambda s, a: TABLE[s, a]}, r"got a tensor of shape .*dist\.Categorical\("),
        ({"dynamics": lambda s, a: dist.Normal(s * 1.0, 1)}, "return a Categorical, or a Delta"),
        ({"reward": lambda s, a: {0: 1.0}["x"]}, r"reward: .* raised KeyError: 'x'$"),
        (
            {"reward": lambda s, a: torch.where((s == 1) & (a == 1), math.nan, 0.0)},
            "got nan in the state 1 for the action 1; look for 0/0",
        ),
    ],
)
def test_a_common_mistake_with_tables(changes, words):
    given = {
        "initial": dist.Categorical(torch.ones(3)),
        "action_prior": lambda s: dist.Categorical(torch.ones(2)),
        "dynamics": lambda s, a: dist.Categorical(TABLE[s, a]),
        "reward": lambda s, a: -1.0,
        "horizon": 3,
    }
    assert cai.tabulate(cai.TrajectoryModel(**given)).num_states == 3
    with pytest.raises(ValueError, match=words):
        cai.TrajectoryModel(**given | changes)

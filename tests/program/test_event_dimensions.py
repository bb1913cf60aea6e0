"""Functions of vectors that get plain numbers, and the other way round, are told so."""

import pyro.distributions as dist
import pytest
import torch

import cai


def drift(s, a):
    return dist.Normal(s + a, 0.1)


def stay(s, a):
    return dist.Normal(s, 0.1).to_event(1)


def model(**changes):
    """A number on a line, pushed by a number."""
    arguments = {
        "initial": dist.Normal(0.0, 1.0),
        "dynamics": drift,
        "reward": lambda s, a: -(s**2) - a**2,
        "action_prior": dist.Normal(0.0, 1.0),
        "horizon": 2,
    }
    return cai.TrajectoryModel(**(arguments | changes))


PLANE = {"initial": dist.Normal(torch.zeros(2), 1.0).to_event(1), "dynamics": stay}
NUMBERS = {
    "an action with an index in the dynamics": (
        "dynamics",
        "action",
        PLANE
        | {
            "dynamics": lambda s, a: dist.Normal(
                torch.stack([s[..., 0] + a[..., 0], s[..., 1]], -1), 0.1
            ).to_event(1),
            "reward": lambda s, a: -(s[..., 0] ** 2),
        },
    ),
    "an action that is added to a coordinate as a vector": (
        "dynamics",
        "action",
        PLANE | {"dynamics": lambda s, a: dist.Normal(s + a * torch.ones(2), 0.1).to_event(1)},
    ),
    "an action with an index in the reward": (
        "reward",
        "action",
        PLANE | {"reward": lambda s, a: -(a[..., 0] ** 2)},
    ),
    "an action that is summed in the reward": (
        "reward",
        "action",
        PLANE | {"reward": lambda s, a: -a.square().sum(-1)},
    ),
    "a state with an index in the dynamics": (
        "dynamics",
        "state",
        {"dynamics": lambda s, a: dist.Normal(s[..., 0] + a, 0.1)},
    ),
    "a state that is a vector before and after": (
        "dynamics",
        "state",
        {"dynamics": lambda s, a: dist.Normal(s[..., :1] + a.unsqueeze(-1), 0.1).to_event(1)},
    ),
    "a state that is summed in the reward": (
        "reward",
        "state",
        {"reward": lambda s, a: -s.square().sum(-1)},
    ),
    "a next state with an index": (
        "arrival_reward",
        "state",
        {"arrival_reward": lambda s, a, s_next: s_next[..., 0]},
    ),
    "a last state with an index": (
        "final_reward",
        "state",
        {"final_reward": lambda s: s[..., 0]},
    ),
    "a state with an index in the prior": (
        "action_prior",
        "state",
        {"action_prior": lambda s: dist.Normal(s[..., 0], 1.0)},
    ),
    "a numbered state with an index": (
        "dynamics",
        "state",
        {
            "initial": dist.Categorical(torch.ones(3)),
            "action_prior": dist.Categorical(torch.ones(2)),
            "dynamics": lambda s, a: dist.Delta(s[..., 0]),
        },
    ),
    "both with an index": (
        "reward",
        "state and action",
        {"reward": lambda s, a: s[..., 0] * a[..., 0]},
    ),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_plain_numbers_that_are_taken_for_vectors(case):
    name, what, changes = NUMBERS[case]
    with pytest.raises(ValueError, match="no event dimension") as caught:
        model(**changes)
    message = str(caught.value)
    assert message.startswith(f"{name}: expected a function of a plain number as the {what}, since")
    assert "\n" not in message
    assert ("to_event" in message) == ("numbered" not in case)
    assert ("a[..., 0]" in message) == ("action" in what)
    assert ("a.unsqueeze(-1) beside a vector" in message) == ("action" in what)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        (
            "dynamics",
            lambda s, a: dist.Normal(torch.stack([s[..., 0] + a, s[..., 1]], -1), 0.1).to_event(1),
        ),
        ("reward", lambda s, a: -(s[..., 0] ** 2) - a**2),
        ("arrival_reward", lambda s, a, s_next: -(a**2)),
    ],
)
def test_vectors_that_are_taken_for_plain_numbers(name, function):
    vectors = PLANE | {
        "action_prior": dist.Normal(torch.zeros(1), 1.0).to_event(1),
        "reward": 0.0,
    }
    with pytest.raises(ValueError, match=r"take a\[\.\.\., 0\], or leave out") as caught:
        model(**(vectors | {name: function}))
    start = f"{name}: expected a function of a vector of one number as the action"
    assert str(caught.value).startswith(start)


def both_wrong(s, a):
    return dist.Normal(s + a[..., 0], 0.1).to_event(1)


def test_a_number_that_meets_a_vector():
    """With another event dimension it would not run either: the message says what to write."""
    with pytest.raises(ValueError, match=r"a\.unsqueeze\(-1\) where the number") as caught:
        model(**PLANE | {"dynamics": both_wrong, "reward": 0})
    assert "torch.where" not in str(caught.value)


def test_with_the_event_dimension_it_runs():
    dynamics = NUMBERS["an action with an index in the dynamics"][2]["dynamics"]
    prior = dist.Normal(torch.zeros(1), 1.0).to_event(1)
    pushed = model(**PLANE | {"dynamics": dynamics, "action_prior": prior, "reward": 0.0})
    paths = pushed.simulate(lambda t, s: pushed.prior(s, t), 2000, seed=0)
    # s + a + noise of two independent steps: 1 + 1 + 0.01 + 1 + 0.01.
    assert paths.states[:, -1, 0].var().item() == pytest.approx(3.02, rel=0.15)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reward": lambda s, a: -(s**2) if (s > 0).all() else s}, "scalar call gives"),
        ({"dynamics": lambda s, a: dist.Normal((s + a).sum(), 0.1)}, "another distribution"),
        ({"reward": lambda s, a: torch.zeros(7)}, "does not broadcast"),
        ({"dynamics": lambda s, a: 1 / 0}, "raised ZeroDivisionError"),
        ({"action_prior": lambda s: 1 / 0}, "raised ZeroDivisionError"),
        ({"action_prior": lambda s: torch.ones(3)}, "expected a distribution to be returned"),
        ({"reward": lambda s, a: s * 0 + torch.inf}, "numbers below"),
        ({"reward": lambda s, a: s**2, "optimality": "bernoulli"}, "needs rewards"),
    ],
)
def test_other_mistakes_keep_their_own_messages(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        model(**changes)
    assert "event dimension" not in str(caught.value)

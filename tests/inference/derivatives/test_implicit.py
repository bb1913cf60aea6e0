"""Derivatives at a fixed point: against finite differences and long finite horizons."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from examples import endless
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.inference.derivatives import _implicit

seeds = st.integers(0, 10**6)
FIELDS = ("reward", "arrival_reward", "log_prior", "log_dynamics", "log_initial", "temperature")
SEEN = torch.tensor([[0, 1, 2, 1], [1, 1, 0, 3]]), torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])


def parameters(table):
    """What is finite and has a say, all but a goal's, as leaves; and the way back."""
    fields = {name: torch.as_tensor(getattr(table, name)).double() for name in FIELDS}
    masks = {name: x > -torch.inf for name, x in fields.items()}
    if (table.reward[-1] == 0).all():
        for name in FIELDS[:4]:
            masks[name][-1] = False
    leaves = [x[masks[name]].clone().requires_grad_() for name, x in fields.items()]

    def rebuild(*leaves):
        pairs = zip(fields.items(), leaves, strict=True)
        new = {name: x.masked_scatter(masks[name], leaf) for (name, x), leaf in pairs}
        return dataclasses.replace(table, **new)

    return leaves, rebuild


def everything(table, eta, rule="soft"):
    likely = inference.log_likelihood(table, SEEN, eta, rule)
    likely = torch.where(likely > -torch.inf, likely, 0.0)  # what the hard rule never does
    return (
        inference.differentiable_values(table, eta, rule),
        inference.differentiable_bound(table, eta, rule),
        likely,
    )


RULES = ["soft", "hard", "boltzmann", "planned"]
ETAS = [-math.inf, -1.3, 0.0, 1.0, 2.0, math.inf]
# Where nature may put off the end, only optimists have finite values.
CASES = [
    *((eta, discount, True) for eta in ETAS for discount in (1.0, 0.9)),
    *((eta, 0.9, False) for eta in (0.0, 0.4, 1.0)),
]


@pytest.mark.parametrize(("eta", "discount", "sure"), CASES)
@pytest.mark.parametrize("rule", RULES)
def test_against_a_difference_and_a_long_horizon(rule, eta, discount, sure):
    """Every field at once: along one direction, and as where all is over before the horizon."""
    leaves, rebuild = parameters(endless(5, discount=discount, sure=sure))
    rng = np.random.default_rng(0)
    along = [torch.as_tensor(rng.normal(size=x.shape)) for x in leaves]
    cotangent = torch.arange(1.0, 5.0).double()
    cotangent[-1] = 1 if discount < 1 else 0

    def loss(horizon, *leaves):
        version = dataclasses.replace(rebuild(*leaves), horizon=horizon)
        V, bound, likely = everything(version, eta, rule)
        V = V if horizon is None else V[0]
        return V, likely, (cotangent * V).sum() + likely.sum() + bound

    answers = []
    for horizon in (None, 400):
        *found, total = loss(horizon, *leaves)
        answers.append([*found, *torch.autograd.grad(total, leaves)])
    for endless_one, long_one in zip(*answers, strict=True):
        torch.testing.assert_close(endless_one, long_one, rtol=1e-8, atol=1e-8)
    above, below = (
        loss(None, *(x + h * u for x, u in zip(leaves, along, strict=True)))[-1].item()
        for h in (1e-6, -1e-6)
    )
    slope = sum((g * u).sum().item() for g, u in zip(answers[0][2:], along, strict=True))
    assert slope == pytest.approx((above - below) / 2e-6, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("rule", "eta"), [("soft", 0.4), ("hard", -1.3), ("boltzmann", 1.0)])
def test_gradcheck(rule, eta):
    leaves, rebuild = parameters(endless(3, sure=True))
    assert inference.differentiable_values(rebuild(*leaves), eta, rule).shape == (4,)
    assert torch.autograd.gradcheck(
        lambda *x: everything(rebuild(*x), eta, rule), leaves, atol=1e-6, fast_mode=True
    )


@pytest.mark.parametrize(
    ("rule", "eta", "discount"), [("soft", 1.0, 1.0), ("soft", 0.0, 0.9), ("boltzmann", -1.3, 1.0)]
)
def test_second_derivatives(rule, eta, discount):
    leaves, rebuild = parameters(endless(3, discount=discount, sure=True))
    assert torch.autograd.gradgradcheck(
        lambda *x: everything(rebuild(*x), eta, rule), leaves, atol=1e-6, fast_mode=True
    )


def test_the_goal_and_the_hopeless_have_gradient_zero():
    """Absorbing states, circles in which nothing is paid, and states that pay for ever."""
    P = torch.eye(6)[torch.tensor([[1, 2], [0, 5], [2, 2], [4, 4], [3, 3], [5, 5]])]
    reward = torch.tensor([[-1.0, -2], [-1, -1], [0, 0], [0, 0], [0, 0], [-1, -1]])
    table = cai.tabulate(models.tabular(P, reward, horizon=None, initial=[1, 1, 1, 1, 1, 0]))
    fields = {
        name: torch.as_tensor(getattr(table, name)).double().requires_grad_()
        for name in ("reward", "log_prior", "log_dynamics", "log_initial", "temperature")
    }
    table = dataclasses.replace(table, **fields)
    V = inference.differentiable_values(table, 1.0)
    assert V[5] == -torch.inf
    seen = torch.tensor([[0, 1, 0, 2], [3, 4, 3, 4]]), torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    (
        inference.differentiable_bound(table, 1.0)
        + V[:5].sum()
        + inference.log_likelihood(table, seen, 1.0).sum()
    ).backward()
    for name, x in fields.items():
        assert x.grad.isfinite().all(), name
    assert (fields["reward"].grad[2:] == 0).all()
    assert (fields["reward"].grad[:2] != 0).any()


@given(
    seed=seeds,
    eta=st.floats(-3, 3),
    rule=st.sampled_from(["soft", "hard"]),
    discount=st.sampled_from([1.0, 0.8]),
)
def test_gradients_are_occupancies(seed, eta, rule, discount):
    """∂bound/∂r · α is how often an action is expected in a state under the tilted chain."""
    table = endless(seed, discount=discount, sure=True)
    reward = table.reward.clone().requires_grad_()
    inference.differentiable_bound(dataclasses.replace(table, reward=reward), eta, rule).backward()
    expected = inference.soft_values(table, eta, rule).state_actions
    torch.testing.assert_close(reward.grad * table.temperature, expected, rtol=1e-9, atol=1e-10)


@given(seed=seeds)
def test_gradient_of_the_evidence_is_an_occupancy(seed):
    """∂ log p(O)/∂r · α sums to the expected lifetime, whatever the sparse solver did."""
    table = endless(seed)
    reward = table.reward.clone().requires_grad_()
    inference.differentiable_bound(dataclasses.replace(table, reward=reward), 1.0).backward()
    shorter = dataclasses.replace(table, horizon=600)
    expected = inference.posterior(shorter).state_actions[:, :-1].sum((0, 1))
    torch.testing.assert_close(reward.grad[:-1].sum(0) * table.temperature, expected)


def corridor(discount, S=500):
    """Two ways from each state, mostly onward, to a goal at the end; lists of successors."""
    rng = np.random.default_rng(0)
    s = np.arange(S)
    ways = np.stack([s + 1, s + 2, s - 1], -1).clip(0, S - 1)
    P = rng.dirichlet([8, 4, 1], size=(S, 2))
    reward = -0.01 - rng.random((S, 2))  # far enough apart that ∂v/∂q < 0 for the Boltzmann rule
    P[-1], reward[-1] = [1, 0, 0], 0
    return cai.tabulate(
        models.tabular(
            P,
            reward,
            successors=np.stack([ways, ways], 1),
            horizon=None,
            initial=np.arange(S) < 3,
            temperature=0.3,
            discount=discount,
        )
    )


@pytest.mark.parametrize(("eta", "discount"), [(-0.1, 1.0), (1.0, 1.0), (0.0, 0.9)])
@pytest.mark.parametrize("rule", RULES)
def test_many_states_against_a_difference(rule, eta, discount):
    """By series and by sparse factorisation, along one direction in all rewards and dynamics."""
    table = corridor(discount)
    rng = np.random.default_rng(1)
    paying = torch.arange(500).unsqueeze(-1) < 499
    along = torch.as_tensor(rng.normal(size=(500, 2))) * paying
    bending = torch.as_tensor(rng.normal(size=(500, 2, 3))) * paying.unsqueeze(-1)
    weights = torch.as_tensor(rng.random(500))

    def loss(h):
        log_dynamics = (table.log_dynamics + h * bending).log_softmax(-1)
        new = dataclasses.replace(table, reward=table.reward + h * along, log_dynamics=log_dynamics)
        return (
            weights * inference.differentiable_values(new, eta, rule)
        ).sum() + inference.differentiable_bound(new, eta, rule)

    h = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(h), h)
    difference = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert slope.item() == pytest.approx(difference.item(), rel=1e-5)


@pytest.mark.parametrize("eta", [-1.3, 0.0, 1.0, 2.0])
def test_with_a_discount_the_goal_is_visited_until_death(eta):
    """Also where the values are those of a linear system, which leaves absorbing states out."""
    table = endless(2, discount=0.8, sure=True)
    more = torch.zeros_like(table.reward)
    more[-1] = 1.0

    def bound(h):
        return inference.differentiable_bound(
            dataclasses.replace(table, reward=table.reward + h * more), eta
        )

    h = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(bound(h), h)
    difference = (bound(1e-5) - bound(-1e-5)).item() / 2e-5
    assert slope.item() == pytest.approx(difference, rel=1e-6)


def test_exact_inference_without_a_factorisation_that_fills_in(monkeypatch):
    """The same numbers by Newton's method and a transposed solve of its own."""
    table = endless(6, sure=True)
    answers = []
    for fills_in in (False, True):
        monkeypatch.setattr(
            "cai.inference.infinite.stationary_values.fills_in", lambda P, fills=fills_in: fills
        )
        if fills_in:
            monkeypatch.setattr(_implicit, "linear_system", lambda table: pytest.fail("factorised"))
        reward = table.reward.clone().requires_grad_()
        bound = inference.differentiable_bound(dataclasses.replace(table, reward=reward), 1.0)
        answers.append((bound, *torch.autograd.grad(bound, reward)))
    for factorised, not_so in zip(*answers, strict=True):
        torch.testing.assert_close(factorised, not_so, rtol=1e-10, atol=1e-10)


def test_what_diverges_is_an_error():
    table = endless(1)
    table = dataclasses.replace(table, reward=table.reward + math.log(100.0))
    with pytest.raises(ValueError, match="spectral radius"):
        inference.differentiable_values(table, 1.0)


@pytest.mark.parametrize(("eta", "rule"), [(-3.0, "soft"), (1.0, "soft")])
def test_what_has_no_values_or_a_last_reward_is_an_error(eta, rule):
    table = endless(1)
    gain = table.reward if eta < 0 else torch.where(table.reward < 0, 3.0, table.reward)
    with pytest.raises(ValueError, match=r"critical optimism|spectral radius"):
        inference.differentiable_values(dataclasses.replace(table, reward=gain), eta, rule)
    last = dataclasses.replace(table, final_reward=torch.ones(4).double())
    with pytest.raises(ValueError, match="final_reward: expected none"):
        inference.differentiable_bound(last, eta, rule)


def test_a_fixed_point_without_a_derivative_is_an_error():
    """Where ∂T/∂v has an eigenvalue of one; the Boltzmann rule passes through such temperatures."""
    table = endless(1)
    stays = torch.zeros_like(table.log_dynamics)
    stays[0, 0, 0] = 1.0
    ones = torch.ones(4)
    for again in (False, True):  # whether the derivative is to be differentiated
        with torch.set_grad_enabled(again), pytest.raises(ValueError, match="no derivative"):
            _implicit._mass(table, stays, ones.double(), ones.bool(), None)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_what_is_not_paid_yet_answers_to_its_reward(eta):
    """A corridor that pays at its first state alone; where it ends, a reward would be infinite."""
    P = torch.zeros(4, 2, 4, dtype=torch.float64)
    for s in range(3):
        P[s, 0, s + 1] = 1.0
        P[s, 1, s], P[s, 1, s + 1] = 0.5, 0.5
    P[3, :, 3] = 1.0
    reward = torch.zeros(4, 2, dtype=torch.float64)
    for first in (0.0, -0.3):  # nothing is paid at all, or not after the first step
        reward[0] = first
        table = cai.tabulate(models.tabular(P, reward, horizon=None))
        r = table.reward.clone().requires_grad_()
        v = inference.differentiable_values(dataclasses.replace(table, reward=r), eta)[0]
        (slope,) = torch.autograd.grad(v, r)
        for s in range(3):
            for a in range(2):
                ends = []
                for h in (1e-5, -1e-5):
                    moved = table.reward.clone()
                    moved[s, a] += h
                    other = dataclasses.replace(table, reward=moved)
                    ends.append(inference.soft_values(other, eta).V[0])
                expected = float(ends[0] - ends[1]) / 2e-5
                assert float(slope[s, a]) == pytest.approx(expected, abs=1e-7)
        assert float(slope[:3].sum()) > 3
        assert float(slope[3].abs().sum()) == 0

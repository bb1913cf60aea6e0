"""The price of each restriction: plans, partial sight, fixed dynamics, luck."""

import itertools
import json
import math

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import torch
from examples import continuous, parity, random_model, scramble
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from paths import value_of

import cai
from cai import inference, models, plot

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])


# The factorised plan


@settings(max_examples=10)
@given(seed=seeds, forbidden=st.sampled_from([0.0, 0.5]))
def test_no_plan_on_a_fine_grid_is_better(seed, forbidden):
    """All pairs of coins for two steps: the ELBO from the worth of the four plans, by paths.

    Between points h apart a grid loses little: with the other coin fixed the ELBO of p is
    H(p) + c p, which at the next point of the grid is lower by at most -log(1 - h/2), as much as a
    coin of p = h/2 gains over one of zero. One coin after the other is moved to the grid, the
    second from its best answer to the first.
    """
    problem = oracles.random_problem(seed, T=2, forbidden=forbidden, scale=3.0, zeros=0.6)
    assume((np.asarray(problem.prior) > 0).all(0).any())
    found = inference.factorised_plan(problem.model())
    h = 1 / 400
    first = torch.linspace(0, 1, 401, dtype=torch.float64)
    coins = torch.stack([first, 1 - first], -1)
    entropy = -torch.special.xlogy(coins, coins).sum(-1)
    elbo = entropy.unsqueeze(1) + entropy
    for a, b in itertools.product(range(2), repeat=2):
        share = coins[:, None, a] * coins[None, :, b]
        elbo = elbo + torch.where(share > 0, share * value_of(problem, (a, b)), 0.0)
    assert elbo.max() - 1e-12 <= found.elbo <= elbo.max() - 2 * math.log1p(-h / 2)
    q = found.policy(torch.arange(2), torch.zeros(2)).probs.detach()
    everywhere = [[row.tolist()] * 3 for row in q]
    assert oracles.elbo(problem, everywhere)[0] == pytest.approx(found.elbo, abs=1e-10)


@pytest.mark.parametrize("restarts", [1, 2])
def test_what_is_forbidden_out_of_reach_may_be_in_a_plan(restarts):
    """The second action is forbidden at the end alone, where nobody acts."""
    reward = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    allowed = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.tensor([1.0, 0.0])),
        dynamics=lambda s, a: dist.Delta(torch.ones_like(s)),
        reward=lambda s, a: reward[s, a],
        action_prior=lambda s: dist.Categorical(allowed[s]),
        horizon=1,
    )
    found = inference.factorised_plan(model, restarts=restarts)
    exact = math.log((1 + math.e) / 2)
    assert found.elbo == pytest.approx(exact, abs=1e-12)
    assert cai.evaluate(model, found.policy).elbo == pytest.approx(exact, abs=1e-12)


@given(make=makes, seed=seeds, discount=discounts)
def test_a_factorised_plan_is_worth_what_it_says(make, seed, discount):
    """By evaluation; never above the correlated one, and as good where there is one step."""
    model = make(seed, S=4, A=3, discount=discount, forbidden=0.1).model()
    together = (cai.tabulate(model).log_prior > -torch.inf).all(-2)  # at each step
    if not together.any(-1).all():
        with pytest.raises(ValueError, match="an action that is allowed in all states"):
            inference.factorised_plan(model)
        return
    found = inference.factorised_plan(model, restarts=2)
    assert cai.evaluate(model, found.policy).elbo == pytest.approx(found.elbo, abs=1e-10)
    best = inference.belief_values(model, cai.blind)
    assert found.elbo <= best.elbo + 1e-10
    assert found.elbo == found.elbos.max()
    short = make(seed, T=1, discount=discount, forbidden=0.0).model()
    one = inference.factorised_plan(short, restarts=1)
    assert one.elbo == pytest.approx(inference.belief_values(short, cai.blind).elbo, abs=1e-11)


@pytest.mark.parametrize("discount", [1.0, 0.6])
def test_gradients_find_nothing_better(discount):
    problem = oracles.random_problem(3, S=4, A=3, T=4, discount=discount, forbidden=0.0, scale=2.0)
    model = problem.model()
    found = inference.factorised_plan(model)
    for seed in range(2):
        torch.manual_seed(seed)
        climbed = inference.fit(model, scramble(cai.Plan(model)), learning_rate=0.2, steps=300)
        assert climbed.elbo <= found.elbo + 1e-7
    assert climbed.elbo == pytest.approx(found.elbo, abs=0.05)


def test_it_commits_to_one_of_two_ways():
    """Same or different, both fine together and bad mixed: independent steps lose log 2."""
    P = torch.eye(3)[
        torch.tensor([[1, 2], [1, 1], [2, 2]])
    ]  # state 1 remembers action 0, state 2 action 1
    reward = torch.tensor([[0.0, 0.0], [0.0, -20.0], [-20.0, 0.0]])
    model = models.tabular(P, reward, horizon=2, initial=[1.0, 0, 0])
    ladder = inference.price_ladder(model)
    prices = list(ladder.prices.values())
    assert prices[0] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-6)
    assert prices[1:] == pytest.approx([0, 0], abs=1e-9)


def test_losses_that_cannot_be_avoided_are_not_nan():
    fatal = models.tabular(torch.ones(1, 2, 1), [[0.0, -torch.inf]], horizon=2)
    found = inference.factorised_plan(fatal)
    assert found.elbo == pytest.approx(2 * torch.tensor(0.5).log().item())
    lost = models.tabular(torch.ones(1, 2, 1), [[-torch.inf, -torch.inf]], horizon=2)
    assert inference.factorised_plan(lost).elbo == -torch.inf


def test_an_infinite_price_is_one():
    """No plan avoids a reward of -inf, whoever looks does: infinity, once, and in the figure."""
    P = torch.tensor([[[0.75, 0.25], [0.25, 0.75]], [[0.25, 0.75], [0.75, 0.25]]])
    model = models.tabular(P, [[0.0, -torch.inf], [-torch.inf, 0.0]], horizon=3)
    ladder = inference.price_ladder(model)
    assert list(ladder.prices.values()) == [0, torch.inf, pytest.approx(0, abs=1e-12)]
    figure = plot.price_ladder(ladder)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert "∞" in {text.get_text() for text in axes.texts}
    assert "−∞" in {text.get_text() for text in axes.texts}


# The ladder


@given(make=makes, seed=seeds, discount=discounts)
def test_every_rung_is_higher_and_attained(make, seed, discount):
    model = make(seed, S=4, discount=discount, forbidden=0.0).model()
    ladder = inference.price_ladder(model, parity)
    names = ["factorised plan", "correlated plan", "partial sight", "fixed dynamics"]
    assert list(ladder.nats) == [*names, "log evidence"]
    assert all(price >= -1e-10 for price in ladder.prices.values())
    values = list(ladder.nats.values())
    assert sum(ladder.prices.values()) == pytest.approx(values[-1] - values[0])
    report = cai.compare(model, ladder.policies)
    assert report.log_evidence == pytest.approx(ladder.nats["log evidence"], abs=1e-10)
    for name, row in report.items():
        assert row.elbo == pytest.approx(ladder.nats[name], abs=1e-10)
        restriction = ladder.nats["fixed dynamics"] - ladder.nats[name]
        assert row.restriction == pytest.approx(restriction, abs=1e-10)


@given(seed=seeds)
def test_where_nothing_is_left_to_chance_only_independence_costs(seed):
    """Known start, deterministic dynamics: a plan sees all, and no luck is needed."""
    problem = oracles.random_problem(seed, S=4, A=3, zeros=1.0, forbidden=0.0)
    ladder = inference.price_ladder(problem.model(), parity)
    apart, *others = ladder.prices.values()
    assert apart >= -1e-10
    assert others == pytest.approx([0, 0, 0], abs=1e-9)


@given(seed=seeds)
def test_linear_gaussian_rungs_in_closed_form(seed):
    """The mean-field gap from the precision of the best plan; what evaluation says of the rest."""
    model = random_model(seed, T=3, n=2, m=1)
    ladder = inference.price_ladder(model)
    apart, blind, luck = ladder.prices.values()
    precision = torch.cholesky_inverse(ladder.policies["correlated plan"].scale_tril)
    gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    assert apart == pytest.approx(gap.item(), abs=1e-9)
    assert min(apart, blind, luck) >= -1e-9
    best = cai.evaluate(model, ladder.policies["fixed dynamics"])
    assert best.elbo == pytest.approx(ladder.nats["fixed dynamics"], abs=1e-9)
    assert ladder.nats["log evidence"] == inference.posterior(model).log_evidence


def test_what_is_left_out_is_said():
    model = models.gridworld("cliff", horizon=20)
    ladder = inference.price_ladder(model, parity)
    assert list(ladder.nats) == ["factorised plan", "fixed dynamics", "log evidence"]
    assert list(ladder.left_out) == ["correlated plan", "partial sight"]
    together = "independent steps, not looking, not seeing all of the state"
    assert list(ladder.prices) == [together, "luck that cannot be had"]
    text = str(ladder)
    assert "correlated plan: left out, 4^20 histories are too many to list" in text
    assert text.splitlines()[1].split()[:2] == ["log", "evidence"]
    assert json.loads(json.dumps(ladder.to_dict()))["left_out"] == ladder.left_out


def test_what_has_no_ladder():
    with pytest.raises(ValueError, match="a ladder of plans needs a finite number of steps"):
        inference.price_ladder(models.ledge(horizon=None))
    with pytest.raises(ValueError, match="observe: expected None for a linear-Gaussian model"):
        inference.price_ladder(random_model(0), parity)
    with pytest.raises(ValueError, match="initial: enumeration needs finitely many states"):
        inference.price_ladder(continuous())
    with pytest.raises(ValueError, match="restarts: expected a whole number of at least 1"):
        inference.factorised_plan(models.ledge(), restarts=0)


def test_the_figure_shows_the_prices():
    model = oracles.random_problem(2, S=4, forbidden=0.0).model()
    ladder = inference.price_ladder(model, parity)
    figure = plot.price_ladder(ladder)
    (axes,) = figure.axes
    assert "nats" in axes.get_xlabel()
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ladder.nats)
    for container in axes.containers:
        widths = [bar.get_width() for bar in container]
        assert max(widths) == ladder.prices[container.get_label()]
    ends = [
        max(bars[i].get_x() + bars[i].get_width() for bars in axes.containers) for i in range(5)
    ]
    top = ladder.nats["log evidence"]
    assert ends == pytest.approx([top - nats for nats in ladder.nats.values()], abs=1e-12)
    assert "true dynamics" in figure._supxlabel.get_text()

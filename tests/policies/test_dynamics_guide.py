"""Bending the dynamics at a price: Pyro's optimum is on the exact dial of optimism."""

import oracles
import pyro
import pytest
import torch
from examples import scramble
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate

import cai
from cai import inference, models

DIAL = [0.0, 0.25, 0.5, 1.0]


def worth(free):
    """The objective, exactly, by enumeration in the guide."""
    guide = config_enumerate(free.guide, "parallel")
    return -TraceEnum_ELBO(max_plate_nesting=0).loss(free.program, guide)


def set_to(free, solution):
    """The guide of an exact solution: its policy, start, dynamics and termination."""
    table = solution.table
    with torch.no_grad():
        ratio = solution.policy.log_probs - free.policy.log_prior
        free.policy.logits.copy_(torch.where(ratio.isfinite(), ratio, 0.0))
        if free.optimism == 0:
            return
        v = solution.log_values
        eta, gamma = free.optimism, table.discount
        free.initial.copy_(eta * v[0])
        for t in range(table.steps):
            # Death pays nothing more, so surviving is weighed by exp(η v) against one.
            free.survival[t] = eta * v[t + 1]
            x = (gamma * (eta * v[t + 1]).exp() + 1 - gamma).log()
            if table.arrival_reward is not None:
                paid = torch.zeros(table.num_states, table.num_actions, table.num_states).double()
                index = torch.arange(table.num_states).expand_as(paid)
                index = index if table.successors is None else table.successors
                paid.scatter_(-1, index, table.arrival_reward)
                x = x + eta * paid / table.temperature
            free.moves[t] = x


def elbo_of(problem, eta, start, policy, moves, coins):
    """F(π, q) by all paths of the tilted chain."""
    T = problem.T
    (S, A), gamma = problem.sizes, problem.discount
    log = lambda x: torch.as_tensor(x).double().log()  # noqa: E731
    keep = torch.sigmoid(log(gamma) - log(1 - gamma) + coins)  # one without a discount
    on = [
        [
            [[float(moves[t, s, a, n] * keep[t, n]) for n in range(S)] for a in range(A)]
            for s in range(S)
        ]
        for t in range(T)
    ]
    off = [
        [
            [[float(moves[t, s, a, n] * (1 - keep[t, n])) for n in range(S)] for a in range(A)]
            for s in range(S)
        ]
        for t in range(T)
    ]
    value = 0.0
    for path in oracles.paths(
        problem, initial=start.tolist(), policy=policy.tolist(), dynamics=(on, off)
    ):
        s = path.states
        cost = log(start[s[0]] / problem.initial[s[0]]) / eta
        for t, a in enumerate(path.actions):
            cost = cost + log(policy[t, s[t], a] / problem.prior[s[t]][a])
            lives = path.alive_at(t + 1)
            q = (on if lives else off)[t][s[t]][a][s[t + 1]]
            p = problem.P[s[t]][a][s[t + 1]] * (gamma if lives else 1 - gamma)
            cost = cost + log(q / p) / eta
        value += path.probability * (path.reward / problem.temperature - cost.item())
    return value


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [0.25, 1.0, 3.0])
def test_the_objective_by_all_paths(eta, discount):
    problem = oracles.random_problem(3, T=2, discount=discount)
    free = scramble(cai.DynamicsGuide(problem.model(), eta))
    start = (free._log_start + free.initial).softmax(-1).detach()
    moves = (free._log_moves + free.moves).softmax(-1).detach()
    policy = free.policy.log_probs.exp().detach()
    expected = elbo_of(problem, eta, start, policy, moves, free.survival.detach())
    assert worth(free) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [*DIAL, 2.0])
def test_the_solution_of_the_dial_attains_its_bound(eta, discount):
    model = oracles.random_problem(4, discount=discount).model()
    solution = inference.soft_values(model, eta)
    free = cai.DynamicsGuide(model, eta)
    set_to(free, solution)
    assert worth(free) == pytest.approx(solution.bound, abs=1e-10)
    for parameter in free.parameters():
        with torch.no_grad():
            parameter += 0.1 * torch.randn_like(parameter)
    assert worth(free) < solution.bound


@pytest.mark.parametrize("eta", DIAL)
def test_svi_lands_on_the_dial(eta):
    """Variational and exact agree, whatever the price; and the freer, the more it imagines."""
    model = models.ledge(horizon=2)
    free = cai.DynamicsGuide(model, eta)
    guide = config_enumerate(free.guide, "parallel")
    optim = pyro.optim.ClippedAdam({"lr": 0.4, "betas": (0.8, 0.95), "lrd": 0.97})
    svi = SVI(free.program, guide, optim, TraceEnum_ELBO(max_plate_nesting=0))
    for _ in range(80):
        svi.step()
    solution = inference.soft_values(model, eta)
    assert worth(free) == pytest.approx(solution.bound, abs=2e-3)
    had, best = cai.evaluate(model, free.policy), cai.evaluate(model, solution.policy)
    assert had.elbo == pytest.approx(best.elbo, abs=0.05)
    fixed = inference.soft_values(model).elbo
    if eta > 0:
        assert worth(free) > fixed + 1e-3 > had.elbo  # it imagines more than there is to have
    else:
        assert had.elbo == pytest.approx(fixed, abs=2e-3)


def test_samples_have_the_same_objective():
    model = models.lottery(discount=0.9)
    free = scramble(cai.DynamicsGuide(model, 0.5))
    loss = Trace_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=0)
    assert -loss.loss(free.program, free.guide) == pytest.approx(worth(free), abs=0.1)


def test_it_starts_at_the_rollout_of_the_prior():
    model = oracles.random_problem(5, discount=0.9).model()
    for eta in DIAL:
        found = worth(cai.DynamicsGuide(model, eta))
        assert found == pytest.approx(cai.evaluate(model, cai.TabularPolicy(model)).elbo, abs=1e-11)


@pytest.mark.parametrize("eta", [-0.5, float("inf"), float("nan")])
def test_prices_that_are_no_maximum(eta):
    with pytest.raises(ValueError, match=r"optimism: expected a (finite|real) number"):
        cai.DynamicsGuide(models.ledge(), eta)


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [0.0, 0.25, 1.0, 3.0])
def test_the_objective_without_enumerating_the_program(eta, discount):
    problem = oracles.random_problem(7, T=3, discount=discount)
    free = scramble(cai.DynamicsGuide(problem.model(), eta))
    assert free.bound == pytest.approx(worth(free), abs=1e-10)
    temperature = problem.temperature
    slopes = torch.autograd.grad(
        free.objective(temperature), list(free.parameters()), allow_unused=True
    )
    for parameter, slope in zip(free.parameters(), slopes, strict=True):
        assert slope is None or slope.isfinite().all()
        direction, h = torch.randn_like(parameter), 1e-5
        with torch.no_grad():
            parameter += h * direction
            above = free.bound
            parameter -= 2 * h * direction
            below = free.bound
            parameter += h * direction
        expected = 0.0 if slope is None else (slope * direction).sum().item()
        assert (above - below) / (2 * h) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", DIAL)
def test_fit_lands_on_the_dial_and_compare_says_what_was_imagined(eta, discount):
    model = models.ledge(horizon=3, discount=discount)
    solution = inference.soft_values(model, eta)
    fitted = inference.fit(model, cai.DynamicsGuide(model, eta), learning_rate=0.3, steps=400)
    assert fitted.estimator == "exact"
    assert fitted.policy.bound == pytest.approx(solution.bound, abs=1e-4)
    assert -fitted.losses[-1].item() == pytest.approx(solution.bound, abs=1e-3)
    rows = cai.compare(model, {"exact": solution, "free": fitted})
    assert rows["free"].imagined_bound == pytest.approx(rows["exact"].imagined_bound, abs=1e-4)
    imagined = rows["exact"].imagined_return
    assert rows["free"].imagined_return == pytest.approx(imagined, abs=0.01)
    had = cai.evaluate(model, fitted.policy.policy).elbo
    assert fitted.elbo == rows["free"].elbo == pytest.approx(had, abs=1e-12)
    if eta == 0:
        assert rows["free"].optimism_gap is None
    else:
        gap = fitted.policy.bound - fitted.elbo
        assert rows["free"].optimism_gap == pytest.approx(gap, abs=1e-12)
        assert rows["free"].optimism_gap > 0


def test_the_return_that_is_imagined_is_that_of_the_dial():
    """Arrival and final rewards, and termination, which the guide bends too."""
    for eta in (0.5, 1.0):
        model = oracles.random_problem(4, discount=0.8).model()
        solution = inference.soft_values(model, eta)
        free = cai.DynamicsGuide(model, eta)
        set_to(free, solution)
        assert free.imagined_return == pytest.approx(solution.imagined_return, abs=1e-9)


def test_dynamics_guides_of_another_problem_are_not_trained():
    """Of the same size, it would be trained for its own rewards without a word."""
    model = models.ledge(horizon=3)
    for other in (models.ledge(horizon=3, fall_reward=-8.0), models.ledge(), models.lottery()):
        with pytest.raises(
            ValueError, match=r"policy: expected a guide for the dynamics .* make a new one"
        ):
            inference.fit(model, cai.DynamicsGuide(other), steps=2)
    assert inference.fit(cai.tabulate(model), cai.DynamicsGuide(model), steps=2).losses.shape == (
        2,
    )

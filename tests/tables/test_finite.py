"""Models whose methods know the step: what runs them and what tabulates them obeys.

Tables with an axis of steps are held against all paths in test_steps.py.
"""

import dataclasses
import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import cai
from cai import inference, models
from cai.graph import graphical_model, transition_graph
from cai.tables.finite import ChangesWithTime, later_steps, prior_sees_state

T, S, A = 3, 2, 2
rng = np.random.default_rng(4)
P = rng.dirichlet(np.ones(S), size=(T, S, A))
R = rng.normal(size=(T, S, A))
PRIOR = rng.dirichlet(np.ones(A), size=(T, S))
WHAT = ("transition", "rewards", "prior")


def arrays(what, only_last=False):
    """Dynamics, rewards and prior of each step, of which one kind changes with the step."""
    found = []
    for name, x in zip(WHAT, (P, R, PRIOR), strict=True):
        x = x.copy()
        if name not in what:
            x[:] = x[0]
        elif only_last:
            x[:-1] = x[0]
        found.append(torch.tensor(x))
    return found


class Seasons(cai.TrajectoryModel):
    """Everything may depend on the step, an int or a tensor."""

    seasons = arrays(WHAT)

    def transition(self, s, a, t):
        return dist.Categorical(self.seasons[0][torch.as_tensor(t), s, a])

    def rewards(self, s, a, t):
        return self.seasons[1][torch.as_tensor(t), s, a]

    def prior(self, s, t):
        return dist.Categorical(self.seasons[2][torch.as_tensor(t), s])


def of(what, only_last=False, **changes):
    class Model(Seasons):
        seasons = arrays(what, only_last)

    arguments = {
        "initial": dist.Categorical(torch.tensor([1.0, 0.0])),
        "dynamics": lambda s, a: dist.Categorical(Model.seasons[0][0, s, a]),
        "reward": lambda s, a: Model.seasons[1][0, s, a],
        "action_prior": lambda s: dist.Categorical(Model.seasons[2][0, s]),
        "horizon": T,
    }
    return Model(**(arguments | changes))


def by_hand(model):
    """log p(O) by the backward recursion, with the arrays of each step."""
    p, r, prior = (x.numpy() for x in model.seasons)
    v = np.zeros(S)
    for t in reversed(range(T)):
        v = np.log((prior[t] * np.exp(r[t] + np.log((p[t] * np.exp(v)).sum(-1)))).sum(1))
    return v[0]


def expected_return(model, policy):
    """E[Σ r] of a policy (T, S, A), forward, with the arrays of each step."""
    p, r, _ = (x.numpy() for x in model.seasons)
    x, total = np.array([1.0, 0.0]), 0.0
    for t in range(T):
        joint = x[:, None] * policy[t]
        total += (joint * r[t]).sum()
        x = np.einsum("sa,san->n", joint, p[t])
    return total


CASES = [(name, last) for name in WHAT for last in (False, True)]


@pytest.mark.parametrize(("name", "last"), CASES)
def test_the_program_has_the_evidence_of_the_recursion(name, last):
    model, total = of([name], last), 0.0
    for path in itertools.product(range(S), repeat=2 * T):
        values = {"s_0": torch.tensor(0)}
        for t in range(T):
            values |= {f"a_{t}": torch.tensor(path[t]), f"s_{t + 1}": torch.tensor(path[T + t])}
        program = poutine.condition(model, data=values)
        total += poutine.trace(program).get_trace().log_prob_sum().exp().item()
    assert math.log(total) == pytest.approx(by_hand(model), abs=1e-9)


@pytest.mark.parametrize(("name", "last"), CASES)
def test_samplers_estimate_the_evidence_of_the_recursion(name, last):
    model = of([name], last)
    right = by_hand(model)
    found = inference.importance(model, lambda t, s: model.prior(s, t), 4000)
    assert abs(found.log_evidence - right) < 5 * found.log_evidence_stderr
    assert abs(inference.smc(model, particles=4000).log_evidence - right) < 0.1


@pytest.mark.parametrize(("name", "last"), CASES)
def test_evaluation_is_exact_and_agrees_with_simulation(name, last):
    model = of([name], last)
    policy = torch.tensor(PRIOR[::-1].copy())

    def act(t, s):
        return dist.Categorical(policy[torch.as_tensor(t), s])

    right = expected_return(model, policy.numpy())
    assert cai.evaluate(model, act).expected_return == pytest.approx(right, abs=1e-12)
    found = cai.evaluate(model, act, samples=4000)
    assert abs(found.expected_return - right) < 5 * found.expected_return_stderr


@pytest.mark.parametrize("name", WHAT)
def test_fits_run_exactly_and_by_sampling(name):
    model = of([name])
    for estimator, runs in (("auto", "exact"), ("enumerated", "enumerated"), ("score", "score")):
        policy = cai.NeuralPolicy(model, hidden=(4,))
        options = {"steps": 3, "samples": 8, "progress": False}
        found = inference.fit(model, policy, estimator=estimator, **options)
        assert found.estimator == runs
    assert inference.fit(model, policy, steps=3, progress=False).elbo < by_hand(model)
    best = inference.soft_values(model).elbo
    for estimator, rate, steps in (("mirror", 1.0, T), ("exact", 0.2, 200)):
        options = {"steps": steps, "learning_rate": rate, "progress": False}
        found = inference.fit(model, cai.TabularPolicy(model), estimator=estimator, **options)
        assert found.elbo == pytest.approx(best, abs=1e-3)


def test_a_fit_learns_what_each_step_pays():
    """One action pays at even steps, the other at odd ones: the best is 1 at each."""

    class Alternating(cai.TrajectoryModel):
        def rewards(self, s, a, t):
            return (a == torch.as_tensor(t) % 2).double()

    model = Alternating(
        initial=dist.Categorical(torch.ones(1)),
        dynamics=lambda s, a: dist.Delta(s),
        reward=0.0,
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=4,
        temperature=0.1,
    )
    found = inference.fit(
        model,
        cai.TabularPolicy(model),
        estimator="score",
        steps=100,
        learning_rate=0.3,
        progress=False,
    )
    # Deterministic dynamics: the best ELBO is log p(O), at each step log of the mean of two.
    assert found.elbo == pytest.approx(4 * math.log((math.exp(10) + 1) / 2), abs=0.05)
    assert cai.evaluate(model, found.policy).expected_return == pytest.approx(4, abs=0.05)


@pytest.mark.parametrize(("name", "last"), CASES)
def test_exact_methods_have_the_evidence_of_the_recursion(name, last):
    model = of([name], last)
    right = by_hand(model)
    bounds = {
        "posterior": inference.posterior(model).log_evidence,
        "optimism_curve": inference.optimism_curve(model, [0.0, 1.0]).bound[1].item(),
        "collapse": inference.posterior(cai.collapse(model)).log_evidence,
        "ladder": inference.price_ladder(model).nats["log evidence"],
        "enumeration": inference.enumeration(model).log_evidence,
        "compare": cai.compare(model, {"prior": lambda t, s: model.prior(s, t)}).log_evidence,
    }
    assert bounds == pytest.approx(dict.fromkeys(bounds, right), abs=1e-9)


def test_learnt_rewards_are_those_of_each_step():
    model = of(["rewards"])
    table = cai.tabulate_rewards(model, cai.tabulate(of([])))
    assert torch.equal(table.reward, torch.tensor(R))
    assert inference.posterior(table).log_evidence == pytest.approx(by_hand(model), abs=1e-12)


@pytest.mark.parametrize(("name", "last"), CASES)
def test_what_needs_one_step_refuses_in_one_line(name, last):
    model = of([name], last)
    for refuses in (
        transition_graph,
        lambda model: inference.count_transitions(model, [([0, 0], [0])]),
        lambda model: inference.goal_values(model, [0]),
        lambda model: dataclasses.replace(cai.tabulate(model), horizon=None),
    ):
        with pytest.raises(ValueError, match=r"step|shape") as caught:
            refuses(model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [cai.TabularPolicy, cai.Plan, cai.HistoryPolicy])
@pytest.mark.parametrize("observe", [None, cai.blind])
def test_policies_start_at_the_prior_of_each_step(make, observe):
    seen = {} if make is cai.Plan else {"observe": observe}
    policy = make(of(["prior"]), **seen)
    shared = torch.tensor(PRIOR).log().mean(1).log_softmax(-1)
    sees = make is not cai.Plan and observe is None
    for t in range(T):
        if make is cai.HistoryPolicy:
            step, found, before = policy.start(), None, None
            for k in range(t + 1):
                found, before = step(k, torch.tensor(1), before), torch.tensor(0)
        else:
            found = policy(t, torch.tensor(1))
        right = torch.tensor(PRIOR[t, 1]).log() if sees else shared[t]
        assert torch.allclose(found.logits.log_softmax(-1), right, atol=1e-12)


def test_one_table_for_all_steps_refuses_a_prior_that_changes():
    with pytest.raises(ValueError, match=r"^stationary: .* depends on the step"):
        cai.TabularPolicy(of(["prior"]), stationary=True)
    with pytest.raises(ChangesWithTime, match=r"^prior: .* soft_q"):
        inference.soft_q(of(["prior"]), steps=10, progress=False)


def test_what_does_not_change_is_taken_from_the_methods():
    """An override that is the same at every step is tabulated, whatever `dynamics` says."""
    model = of([], dynamics=lambda s, a: dist.Delta(s), reward=7.0)
    assert inference.posterior(model).log_evidence == pytest.approx(by_hand(model), abs=1e-12)
    assert cai.evaluate(model, cai.TabularPolicy(model)).elbo_stderr is None


def test_steps_that_are_plain_numbers_suffice():
    """A list has no index that is a tensor; comparing asks one step at a time."""

    class Listed(Seasons):
        def transition(self, s, a, t=0):
            return dist.Categorical([torch.tensor(P[i]) for i in (0, 0, 2)][t][s, a])

        def prior(self, s, t=0):
            return dist.Categorical(torch.ones(A, dtype=torch.float64))

    model = Listed(**_same_arguments(of([])))
    arrays = torch.tensor(P[[0, 0, 2]]), torch.tensor(R), torch.ones(T, S, A).double() / A
    model.__dict__["seasons"] = arrays
    assert inference.posterior(model).log_evidence == pytest.approx(by_hand(model), abs=1e-12)


def _same_arguments(model):
    return {x.name: getattr(model, x.name) for x in dataclasses.fields(model)}


@pytest.mark.parametrize("changed", [1, 137, 299])
def test_one_step_among_many_is_found(changed):
    class Once(cai.TrajectoryModel):
        def rewards(self, s, a, t=0):
            return super().rewards(s, a) + (torch.as_tensor(t) == changed).double()

    ledge = models.ledge(horizon=300)
    found = inference.soft_values(Once(**_same_arguments(ledge)))
    assert found.table.by_step == ("reward",)
    # One unit more, whatever is done, as long as one is alive.
    assert found.bound == pytest.approx(inference.soft_values(ledge).bound + 1 / ledge.temperature)


def test_of_many_steps_some_are_compared_and_always_the_last():
    model = models.ledge(horizon=100_000)
    steps = later_steps(model, 10)
    assert steps[0] == 1
    assert steps[-1] == 99_999
    assert len(steps) <= 1024
    assert len(later_steps(model, 2**30)) == 8


@pytest.mark.parametrize("changes", [True, False])
def test_infinite_horizons_are_compared_at_some_steps(changes):
    class Endless(cai.TrajectoryModel):
        def rewards(self, s, a, t=0):
            late = (torch.as_tensor(t) >= 50).double()
            return super().rewards(s, a) - (late if changes else 0.0)

    model = Endless(**_same_arguments(models.ledge(horizon=None)))
    if changes:
        for method in (inference.soft_values, inference.z_learning):
            with pytest.raises(ChangesWithTime, match=r"^rewards"):
                method(model)
    else:
        right = inference.soft_values(models.ledge(horizon=None)).bound
        assert inference.soft_values(model).bound == pytest.approx(right, abs=1e-12)


def test_an_infinite_horizon_that_changes_at_one_early_step():
    class Once(cai.TrajectoryModel):
        def rewards(self, s, a, t=0):
            return super().rewards(s, a) - (torch.as_tensor(t) == 29).double()

    model = Once(**_same_arguments(models.ledge(horizon=None)))
    with pytest.raises(ChangesWithTime, match=r"^rewards: .* at step 29 "):
        inference.soft_values(model)


@pytest.mark.parametrize("name", WHAT)
@pytest.mark.parametrize(("horizon", "said"), [(T + 2, f"{T + 2} steps"), (None, "each step")])
def test_what_knows_fewer_steps_than_there_are_is_told_so_in_one_line(name, horizon, said):
    """Arrays of T steps, all alike, of which the horizon asks more."""
    model = of([], horizon=horizon)
    with pytest.raises(ValueError, match=rf"{said}|raised IndexError") as caught:
        inference.soft_values(dataclasses.replace(model, discount=0.9))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "method",
    [
        lambda self, s, a, s_next, t=0: 1.0 * s_next + torch.as_tensor(t),
        lambda self, s, a, s_next, t: 1.0 * s_next + torch.as_tensor(t),
        lambda self, s, a, s_next: 1.0 * s_next,
    ],
)
def test_what_is_paid_on_arrival_may_be_told_the_step(method):
    told = method.__code__.co_argcount == 5
    kind = type("Kind", (Seasons,), {"arrival_rewards": method, "seasons": arrays([])})
    model = kind(**_same_arguments(of([])))
    s = torch.arange(S).double()
    v = np.zeros(S)
    for t in reversed(range(T)):
        later = (P[0] * np.exp(s.numpy() + told * t + v)).sum(-1)
        v = np.log((PRIOR[0] * np.exp(R[0]) * later).sum(1))
    assert inference.posterior(model).log_evidence == pytest.approx(v[0], abs=1e-12)
    paths = model.simulate(lambda t, s: model.prior(s, t), 20, seed=0)
    here = paths.states[:, :-1], paths.actions
    steps = torch.arange(T) if told else 0
    right = torch.tensor(R[0])[here] + paths.states[:, 1:] + steps
    assert torch.allclose(paths.rewards, right.double())


@pytest.mark.parametrize(("name", "method"), [("final_rewards", lambda self, s, t=0: 1.0 * s + t)])
def test_what_is_paid_at_the_end_is_not_told_the_step(name, method):
    kind = type("Kind", (cai.TrajectoryModel,), {name: method})
    with pytest.raises(ValueError, match=rf"^{name}: .* without the step, .* rewards\(s, a, t\)"):
        kind(**_same_arguments(models.ledge()))


class Paying(cai.TrajectoryModel):
    """What is paid on arrival and at the end, without the fields."""

    def arrival_rewards(self, s, a, s_next):
        return 0.5 * s_next.double()

    def final_rewards(self, s):
        return -0.25 * s.double()


def paying(**changes):
    arguments = {
        "initial": dist.Categorical(torch.tensor([1.0, 0.0])),
        "dynamics": lambda s, a: dist.Delta(torch.where(a == 1, 1 - s, s)),
        "reward": 0.0,
        "action_prior": dist.Categorical(torch.ones(2)),
        "horizon": 1,
    }
    return Paying(**(arguments | changes))


def test_rewards_of_arrival_and_end_that_are_overridden_count_everywhere():
    model = paying()
    right = math.log(0.5 + 0.5 * math.exp(0.5 - 0.25))
    assert inference.posterior(model).log_evidence == pytest.approx(right, abs=1e-12)
    paths = model.simulate(lambda t, s: model.prior(s, t), 200, seed=0)
    assert torch.equal(paths.returns, 0.25 * paths.states[:, 1].double())
    total = 0.0
    for a in range(2):
        program = poutine.condition(model, data={"a_0": torch.tensor(a)})
        total += poutine.trace(program).get_trace().log_prob_sum().exp().item()
    assert math.log(total) == pytest.approx(right, abs=1e-9)
    fitted = inference.fit(
        model, cai.TabularPolicy(model), estimator="score", steps=60, progress=False
    )
    assert fitted.elbo == pytest.approx(right, abs=0.01)


def test_a_last_reward_needs_a_last_step():
    with pytest.raises(ValueError, match=r"^final_rewards: expected none with an infinite"):
        paying(horizon=None)


def test_a_factor_of_ones_own_is_refused_where_it_is_made():
    class Odd(cai.TrajectoryModel):
        def log_factor(self, s, a, s_next, t=0):
            return super().log_factor(s, a, s_next, t) + torch.as_tensor(t)

    with pytest.raises(ValueError, match=r"^log_factor: .*override those two"):
        Odd(**_same_arguments(models.ledge()))


@pytest.mark.parametrize("method", ["prior", "transition", "rewards"])
def test_matrices_are_all_there_is_of_a_linear_gaussian_model(method):
    plain = models.linear_gaussian([[1.0]], [[1.0]], horizon=3, Q=[[1.0]], R=[[1.0]])
    given = {x.name: getattr(plain, x.name) for x in dataclasses.fields(plain) if x.init}
    Other = type("Other", (cai.LinearGaussian,), {method: lambda self, *arguments: None})
    with pytest.raises(ValueError, match=rf"^{method}: expected that of the matrices"):
        Other(**given)


@pytest.mark.parametrize("sees", [True, False])
def test_an_overridden_prior_that_sees_the_state_is_no_prior_of_plans(sees):
    class Prior(cai.TrajectoryModel):
        def prior(self, s, t=0):
            return dist.Normal(s if sees else torch.zeros(()), 1.0 + torch.as_tensor(t))

    model = Prior(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1),
        reward=lambda s, a: -(s**2),
        action_prior=dist.Normal(0.0, 1.0),
        horizon=2,
    )
    assert prior_sees_state(model) is sees
    if sees:
        with pytest.raises(ValueError, match=r"^action_prior: expected one density"):
            cai.Plan(model)
        with pytest.raises(ValueError, match=r"^action_prior: expected one density"):
            inference.sample_plans(model, samples=4, warmup=1, chains=1)
    else:
        assert cai.Plan(model)(1, torch.zeros(())).scale.item() == pytest.approx(2.0)


def test_the_graph_has_the_dependencies_of_each_step():
    class Late(cai.TrajectoryModel):
        def transition(self, s, a, t=0):
            if t == 0:
                return dist.Delta(s)
            gust = pyro.sample("gust", dist.Bernoulli(0.5)).long()
            return dist.Delta((s + a + gust) % 2)

    model = Late(
        initial=dist.Categorical(torch.ones(2)),
        dynamics=lambda s, a: dist.Delta(s),
        reward=0.0,
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=2,
    )
    edges = set(graphical_model(model).edges)
    assert {("s_0", "s_1"), ("s_1", "s_2"), ("a_1", "s_2"), ("t1/gust", "s_2")} <= edges
    assert ("a_0", "s_1") not in edges
    assert "t0/gust" not in graphical_model(model)

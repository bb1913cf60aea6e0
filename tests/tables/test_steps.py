"""Tables whose steps differ, against the same problem with the time in the state.

Sums over all paths are in the tests of each method, which take oracles.KINDS.
"""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro import poutine

import cai
from cai import inference, models
from cai.stepping.model_source import ModelSource

NAMES = ("prior", "P", "reward", "arrival")
RULES = ("soft", "hard", "boltzmann", "planned")
problems = st.builds(
    oracles.random_steps,
    seed=st.integers(0, 10**6),
    T=st.integers(1, 4),
    S=st.integers(1, 4),
    A=st.integers(1, 3),
    discount=st.sampled_from([1.0, 0.8]),
    alike=st.sets(st.sampled_from(NAMES)).map(tuple),
)
etas = st.sampled_from([-math.inf, -1.3, -1e-7, 0.0, 0.04, 1.0, 2.5, math.inf])


def both(problem):
    """The table, and that with the time in the state."""
    return tuple(
        cai.tabulate(x.model()) for x in (problem, oracles.with_time_in_the_state(problem))
    )


def close(x, y, tolerance=1e-10):
    torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def of_time(x, problem, last=False):
    """Rows of the states of each step alone, (T', N, …) -> (T', S, …), of T or T+1 steps."""
    S = problem.sizes[0]
    return torch.stack([x[t, t * S : t * S + S] for t in range(problem.T + last)])


@given(problem=problems, eta=etas, rule=st.sampled_from(RULES))
def test_every_number_is_that_with_the_time_in_the_state(problem, eta, rule):
    here, there = (inference.soft_values(x, eta, rule) for x in both(problem))
    assert here.bound == pytest.approx(there.bound, abs=1e-9)
    close(here.V, of_time(there.V, problem, last=True))
    close(here.Q, of_time(there.Q, problem))
    close(here.policy.log_probs.exp(), of_time(there.policy.log_probs.exp(), problem))
    close(here.states, of_time(there.states, problem, last=True))
    close(here.state_actions, of_time(there.state_actions, problem))
    close(here.visits, of_time(there.state_actions, problem).sum(0))
    for name in ("imagined_return", "tilt_start", "tilt_dynamics", "entropy"):
        assert getattr(here, name) == pytest.approx(getattr(there, name), abs=1e-9), name
    for t in range(problem.T):
        close(here.at(t).Q, here.Q[t])
        close(here.at(t).policy, here.policy.log_probs[t].exp())
        close(here.at(t).dynamics(), here.dynamics(t))
        S = problem.sizes[0]
        now, after = slice(t * S, t * S + S), slice(t * S + S, t * S + 2 * S)
        close(here.dynamics(t), there.dynamics(t)[now, :, after])
    close(here.at(problem.T).V, here.V[-1])
    worth = [cai.evaluate(x.table, x.policy) for x in (here, there)]
    for name in ("elbo", "expected_return", "entropy"):
        assert getattr(worth[0], name) == pytest.approx(getattr(worth[1], name), abs=1e-9), name


@given(problem=problems, eta=etas, seed=st.integers(0, 99))
def test_samples_are_those_with_the_time_in_the_state(problem, eta, seed):
    """The same uniform numbers draw the same trajectories, as outcomes have the same order."""
    here, there = (inference.soft_values(x, eta) for x in both(problem))
    one, other = here.sample(50, seed), there.sample(50, seed)
    alive, S = other.alive, problem.sizes[0]
    assert torch.equal(one.alive, alive)
    assert torch.equal(one.states[alive], (other.states - S * torch.arange(problem.T + 1))[alive])
    assert torch.equal(one.actions[alive[:, :-1]], other.actions[alive[:, :-1]])
    close(one.returns, other.returns)


@given(problem=problems, eta=st.sampled_from([-1.3, 0.0, 0.04, 1.0]), rule=st.sampled_from(RULES))
def test_derivatives_are_those_with_the_time_in_the_state(problem, eta, rule):
    """What each step's fields have, and a field that all steps share as the sum over them."""
    S, T = problem.sizes[0], problem.T

    def gradients(table, loss):
        names = ("reward", "arrival_reward", "log_prior", "log_dynamics", "final_reward")
        fields = {x: getattr(table, x).clone().requires_grad_() for x in names}
        loss(dataclasses.replace(table, **fields)).backward()
        return {x: field.grad for x, field in fields.items()}

    here, there = both(problem)
    n = 3
    rng = np.random.default_rng(T)
    s = torch.as_tensor(rng.integers(S, size=(n, T)))
    a = torch.as_tensor(rng.integers(problem.sizes[1], size=(n, T)))
    later = s + S * torch.arange(T)
    weight = torch.linspace(1.0, 2.0, S, dtype=torch.float64)

    def losses(states):
        seen = states, a
        yield lambda x: inference.differentiable_bound(x, eta, rule)
        yield lambda x: (inference.differentiable_values(x, eta, rule)[0, :S] * weight).sum()
        yield lambda x: inference.log_likelihood(x, seen, eta, rule).nan_to_num(neginf=0.0).sum()

    for one, other in zip(losses(s), losses(later), strict=True):
        mine, right = gradients(here, one), gradients(there, other)
        for name in ("reward", "log_prior"):
            parts = right[name][: S * T].unflatten(0, (T, S))
            close(mine[name], parts if name in here.by_step else parts.sum(0), 1e-8)
        close(mine["final_reward"], right["final_reward"][S * T :], 1e-8)
        for name in ("arrival_reward", "log_dynamics"):
            if there.successors is not None or here.successors is not None:
                continue
            parts = torch.stack(
                [right[name][t * S : t * S + S, :, t * S + S : t * S + 2 * S] for t in range(T)]
            )
            close(mine[name], parts if name in here.by_step else parts.sum(0), 1e-8)


@pytest.mark.parametrize("eta", [0.0, 0.05, 1.0, -0.7])
def test_second_derivatives_and_curvature(eta):
    problem = oracles.random_steps(3, T=3, forbidden=0, zeros=0)
    table = cai.tabulate(problem.model())

    def bound(reward):
        return inference.differentiable_bound(dataclasses.replace(table, reward=reward), eta)

    r = table.reward.clone().requires_grad_()
    assert torch.autograd.gradcheck(bound, (r,))
    assert torch.autograd.gradgradcheck(bound, (r,))
    u = torch.randn_like(table.reward)
    found = inference.reward_hessian_vector_product(table, u, eta)
    _, right = torch.autograd.functional.hvp(bound, table.reward, u)
    close(found, right, 1e-9)
    close(torch.func.grad(bound)(table.reward), torch.func.jacrev(bound)(table.reward))


@given(seed=st.integers(0, 10**6), discount=st.sampled_from([1.0, 0.8]), K=st.integers(1, 3))
def test_lists_of_successors_are_the_dense_arrays(seed, discount, K):
    """Successors that all steps share, of which each makes some impossible; twice, too."""
    T, S, A = 3, 9, 2
    rng = np.random.default_rng(seed)
    listed = rng.integers(S, size=(S, A, K))
    P = rng.random((T, S, A, K)) * (rng.random((T, S, A, K)) < 0.7)
    P[..., 0] += 0.1
    P /= P.sum(-1, keepdims=True)
    of_state = rng.normal(size=(T, S))  # r⁺ is a function of where one arrives
    arrival = of_state[np.arange(T)[:, None, None, None], listed]
    dense = np.zeros((T, S, A, S))
    for index in np.ndindex(P.shape):
        dense[(*index[:3], listed[index[1:]])] += P[index]
    rest = {"horizon": T, "discount": discount, "initial": np.ones(S)}
    reward = rng.normal(size=(T, S, A))
    lists = models.tabular(P, reward, successors=listed, arrival_reward=arrival, **rest)
    whole = np.broadcast_to(of_state[:, None, None], dense.shape)
    arrays = models.tabular(dense, reward, arrival_reward=whole, **rest)
    assert cai.tabulate(lists).successors is not None
    for eta in (-0.5, 0.0, 1.0, math.inf):
        one, other = (inference.soft_values(x, eta) for x in (lists, arrays))
        close(one.V, other.V)
        close(one.states, other.states)
        for t in range(T):
            close(one.dynamics(t), other.dynamics(t))
        for t in range(T):
            close(one.marginal(f"s_{t}", f"s_{t + 1}"), other.marginal(f"s_{t}", f"s_{t + 1}"))
    policies = [inference.soft_values(x).policy for x in (lists, arrays)]
    two = [cai.evaluate(x, q) for x, q in zip((lists, arrays), policies, strict=True)]
    assert two[0].elbo == pytest.approx(two[1].elbo, abs=1e-10)
    paths = lists.simulate(policies[0], 200, seed=1)
    t, s, a, after = torch.arange(T), paths.states[:, :-1], paths.actions, paths.states[:, 1:]
    right = torch.tensor(reward)[t, s, a] + torch.tensor(of_state)[t, after]
    close(paths.rewards[paths.alive[:, :-1]], right[paths.alive[:, :-1]])


def test_arrays_with_an_axis_of_steps_that_does_not_fit_are_refused_in_one_line():
    problem = oracles.random_steps(0, T=3)
    rest = {"horizon": 3, "action_prior": problem.prior, "arrival_reward": problem.arrival}
    changes = (
        ({"horizon": 4}, r"transitions: .*horizon 4 and 3 steps"),
        ({"horizon": None}, r"transitions: .*horizon None and 3 steps"),
        ({"action_prior": problem.prior[:2]}, r"action_prior: "),
        ({"arrival_reward": problem.arrival[:2]}, r"arrival_reward: "),
        ({"reward": problem.reward[:2]}, r"reward: .*2 steps"),
    )
    for change, message in changes:
        arguments = rest | change
        reward = arguments.pop("reward", problem.reward)
        with pytest.raises(ValueError, match=message) as caught:
            models.tabular(problem.P, reward, **arguments)
        assert "\n" not in str(caught.value)


def test_a_table_without_steps_is_its_own_step():
    table = cai.tabulate(models.ledge())
    assert table.at(2) is table
    assert table.at(slice(1, 3)) is table
    timed = cai.tabulate(oracles.random_steps(0, alike=("P",)).model())
    assert timed.by_step == ("log_prior", "reward", "arrival_reward")
    assert timed.at(1).by_step == ()
    assert timed.at(slice(1, 3)).horizon == 2
    close(timed.at(slice(1, 3)).at(0).reward, timed.reward[1])


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_latents_are_those_of_their_step(discount):
    problem = oracles.random_steps(5, T=3, discount=discount, zeros=0, forbidden=0)
    model = problem.latent_model()
    one, other = (inference.posterior(x) for x in (model, problem.model()))
    assert one.log_evidence == pytest.approx(other.log_evidence, abs=1e-12)
    calm = inference.soft_values(model)
    for t in range(problem.T):
        sites = f"s_{t}", f"a_{t}"
        close(one.marginal(f"t{t}/coin", *sites).sum(0), other.marginal(*sites))
        moves = calm.marginal(f"t{t}/coin", *sites)
        s, a = torch.arange(3)[:, None], torch.arange(2)
        with torch.no_grad():
            coin = torch.stack([_coin(model, t, s[i, 0], a) for i in range(3)])
        close(moves[1], calm.state_actions[t] * coin)
    if discount == 1:
        second = inference.enumeration(model).log_evidence
        assert second == pytest.approx(one.log_evidence, abs=1e-9)
    with pytest.raises(ValueError, match="without a program") as caught:
        one.at(1).rest.marginal("t0/coin")
    assert "\n" not in str(caught.value)


def _coin(model, t, s, a):
    """The probability of the coin, from a run of the step's own program."""
    trace = poutine.trace(model.transition).get_trace(s.expand(a.shape), a, t)
    return trace.nodes["coin"]["fn"].probs


def test_environments_and_twists_follow_the_step():
    problem = oracles.random_steps(2, T=3, zeros=0, forbidden=0)
    model = problem.model()
    best = inference.soft_values(model)
    source = ModelSource(model, 4000)
    total, alive = torch.zeros(4000, dtype=torch.float64), torch.ones(4000, dtype=torch.bool)
    for t in range(problem.T):
        a = best.policy(torch.full((4000,), t), source.s).sample()
        taken = source.step(a)
        total += torch.where(alive, taken.reward, 0.0)
        alive &= ~taken.over
    exact = cai.evaluate(model, best.policy)
    assert abs(total.mean().item() - exact.expected_return) < 5 * total.std().item() / 4000**0.5
    posterior = inference.posterior(model)
    for solution in (posterior, inference.soft_values(model, 0.5)):
        found = inference.importance(model, solution.policy, 4000, seed=0)
        right = posterior.log_evidence
        assert abs(found.log_evidence - right) < 5 * found.log_evidence_stderr + 1e-9
        found = inference.smc(model, particles=500, twist=solution, proposal=solution, seed=0)
        assert found.log_evidence == pytest.approx(
            right, abs=1e-9 if solution is posterior else 0.2
        )


@given(seed=st.integers(0, 10**6), discount=st.sampled_from([1.0, 0.8]))
def test_composed_rewards_and_goals_follow_the_step(seed, discount):
    one = oracles.random_steps(seed, discount=discount)
    other = oracles.random_steps(seed + 1, alike=("reward",))
    paid = {x: getattr(other, x) for x in ("reward", "arrival", "final")}
    parts = [one, dataclasses.replace(one, **paid)]
    mean = {x: 0.3 * getattr(one, x) + 0.7 * paid[x] for x in paid}
    best = inference.soft_values(dataclasses.replace(one, **mean).model())
    mixed = inference.compose_rewards([inference.soft_values(x.model()) for x in parts], [0.3, 0.7])
    allowed = best.table.log_prior.expand_as(best.Q) > -torch.inf
    close((mixed.Q + mixed.correction)[allowed], best.Q[allowed], 1e-9)
    close(mixed.best_policy.log_probs.exp(), best.policy.log_probs.exp(), 1e-9)
    assert (mixed.gap + mixed.correction)[allowed].min() > -1e-9
    goals = [one, dataclasses.replace(one, final=other.final)]
    found = inference.compose([inference.posterior(x.model()) for x in goals], [0.4, 0.6])
    ends = [np.exp(np.asarray(x.final) / one.temperature) for x in goals]
    final = one.temperature * np.log(0.4 * ends[0] + 0.6 * ends[1])
    right = inference.posterior(dataclasses.replace(one, final=final).model())
    close(found.V, right.V, 1e-9)
    close(found.states, right.states, 1e-9)


def test_a_budget_of_divergence_is_spent():
    model = oracles.random_steps(1, T=4, forbidden=0).model()
    found = inference.divergence_budget(model, 0.3)
    warmer = dataclasses.replace(model, temperature=found.temperature)
    worth = cai.evaluate(warmer, inference.soft_values(warmer).policy)
    assert worth.expected_return / found.temperature - worth.elbo == pytest.approx(0.3, abs=1e-9)

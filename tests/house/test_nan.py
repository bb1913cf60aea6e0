"""NaN in a policy, a table or a value function is refused in one line wherever one is taken.

Sums that count only p > 0 would drop it, and a policy with NaN in it would be worth zero: an ELBO
above log p(O), and exact.
"""

import dataclasses
import functools
import math

import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models
from cai.inference.fitting.rollout_elbo import RolloutELBO

LEDGE = models.ledge()
TABLE = cai.tabulate(LEDGE)
WALK = cai.TrajectoryModel(
    initial=dist.Normal(0.0, 0.3),
    dynamics=lambda s, a: dist.Normal(0.9 * s + 0.5 * a, 0.1),
    reward=lambda s, a: -(s**2),
    action_prior=dist.Normal(0.0, 1.0),
    horizon=5,
)
ONE = torch.eye(2, dtype=torch.float64)
PRIOR = dist.MultivariateNormal(ONE[0], ONE)
SYSTEM = models.linear_gaussian(
    A=ONE, B=ONE, noise=ONE, Q=ONE, R=ONE, horizon=4, action_prior=PRIOR
)


def with_nan(policy, name=None, place=0):
    """NaN in one number of one parameter or buffer."""
    held = dict([*policy.named_parameters(), *policy.named_buffers()])
    with torch.no_grad():
        held[name or next(iter(held))].view(-1)[place] = math.nan
    return policy


def late(t, s):
    """A function whose third step is lost, and which torch does not look at."""
    lost = torch.where(torch.as_tensor(t) == 2, math.nan, 0.0)
    logits = torch.zeros(*torch.broadcast_shapes(lost.shape, s.shape), TABLE.num_actions)
    return dist.Categorical(logits=logits + lost.unsqueeze(-1), validate_args=False)


def late_mean(t, s):
    lost = torch.where(torch.as_tensor(t) == 2, math.nan, 0.0)
    return dist.Normal(0 * s + lost, 1.0, validate_args=False)


def late_scale(t, s):
    lost = torch.where(torch.as_tensor(t) == 2, math.nan, 1.0)
    return dist.Normal(0 * s, lost + 0 * s, validate_args=False)


def table_of_log_probs():
    log_probs = TABLE.log_prior.expand(TABLE.steps, -1, -1).clone()
    return with_nan(cai.TabularPolicy.from_log_probs(log_probs), "log_prior", -1)


LINEAR = ("gains", "offsets", "log_scales", "lower")


def linear(name):
    return with_nan(cai.LinearGaussianPolicy(SYSTEM), name)


TWO = dist.Categorical(torch.ones(2))
POLICIES = {
    "table": (LEDGE, lambda: with_nan(cai.TabularPolicy(LEDGE))),
    "where it never is": (LEDGE, lambda: with_nan(cai.TabularPolicy(LEDGE), "logits", -1)),
    "stationary": (LEDGE, lambda: with_nan(cai.TabularPolicy(LEDGE, stationary=True))),
    "log-probabilities": (LEDGE, table_of_log_probs),
    "network": (LEDGE, lambda: with_nan(cai.NeuralPolicy(LEDGE, (4,)))),
    "memory": (LEDGE, lambda: with_nan(cai.RecurrentPolicy(LEDGE, memory=4, hidden=(4,)))),
    "histories": (LEDGE, lambda: with_nan(cai.HistoryPolicy(LEDGE))),
    "reactive": (LEDGE, lambda: with_nan(cai.TabularPolicy(LEDGE, observe=cai.blind))),
    "plan": (LEDGE, lambda: with_nan(cai.Plan(LEDGE))),
    "latents": (LEDGE, lambda: with_nan(cai.LatentPolicy(LEDGE, TWO, hidden=(4,)))),
    "guide": (LEDGE, lambda: with_nan(cai.DynamicsGuide(LEDGE), "moves")),
    "function": (LEDGE, lambda: late),
    "mean": (WALK, lambda: late_mean),
    "scale": (WALK, lambda: late_scale),
    "a network's mean": (WALK, lambda: with_nan(cai.NeuralPolicy(WALK, (4,)))),
    "Gaussian plan": (SYSTEM, lambda: with_nan(cai.GaussianPlan(SYSTEM))),
    **{name: (SYSTEM, functools.partial(linear, name)) for name in LINEAR},
}


def importance(model, policy):
    return inference.importance(model, policy, 30)


def svi(model, policy):
    return RolloutELBO().loss(model, model.rollout(policy))


TAKERS = {
    "evaluate": cai.evaluate,
    "evaluate by samples": functools.partial(cai.evaluate, samples=20),
    "compare": lambda model, policy: cai.compare(model, {"lost": policy}),
    "importance": importance,
    "bracket": functools.partial(inference.evidence_bracket, samples=20, group_size=5),
    "renyi": lambda model, policy: inference.renyi_bound(model, policy, 0.5, samples=20),
    "smc": lambda model, policy: inference.smc(model, 20, proposal=policy),
    "simulate": lambda model, policy: model.simulate(policy, 20),
    "rollout": lambda model, policy: model.rollout(policy)(),
    "svi": svi,
    "fit": functools.partial(inference.fit, steps=2, samples=4, progress=False),
    "mirror": functools.partial(inference.fit, steps=2, estimator="mirror", progress=False),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_with_nan_is_refused_wherever_one_is_taken(name, taker):
    model, make = POLICIES[name]
    policy = make()
    learns = isinstance(policy, torch.nn.Module) and any(True for _ in policy.parameters())
    for_training = taker in ("fit", "mirror", "svi")
    said = "policy|RolloutELBO" if for_training and not learns else "NaN|nan|elements of std"
    with pytest.raises(ValueError, match=said) as error:
        TAKERS[taker](model, policy)
    assert "\n" not in str(error.value)


def test_the_place_is_named():
    policy = cai.TabularPolicy(LEDGE)
    policy.logits.data[1, 2, 0] = math.nan
    with pytest.raises(ValueError, match=r"policy.logits: .* NaN at index \[1, 2, 0\]"):
        cai.evaluate(LEDGE, policy)
    with pytest.raises(ValueError, match=r"policy at \(step, state, action\): .* \[2, 0, 0\]"):
        cai.evaluate(LEDGE, late)


def test_minus_infinity_is_not_nan():
    """An action that is never taken, whatever the sum of the logits is."""
    policy = cai.TabularPolicy(LEDGE)
    policy.logits.data[:, 0, 0] = -math.inf
    policy.logits.data[:, 0, 1] = 0.0
    by_hand = cai.TabularPolicy(LEDGE)
    by_hand.logits.data[:, 0, 0] = -1e6
    assert cai.evaluate(LEDGE, policy).elbo == pytest.approx(cai.evaluate(LEDGE, by_hand).elbo)


# Tables and values.


@pytest.mark.parametrize(
    "name",
    ["log_initial", "log_prior", "log_dynamics", "reward", "arrival_reward", "final_reward"],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_table_with_nan_is_refused_where_it_is_made(name, value):
    held = getattr(TABLE, name)
    array = torch.zeros_like(TABLE.log_dynamics) if held is None else held.clone()
    array.view(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"{name}: expected numbers below \+inf .*, got"):
        dataclasses.replace(TABLE, **{name: array})
    assert dataclasses.replace(TABLE, **{name: held}).num_states == TABLE.num_states


@pytest.mark.parametrize("horizon", [4, None])
@pytest.mark.parametrize("name", ["reward", "log_prior", "log_dynamics"])
def test_nan_that_learning_wrote_into_a_table_is_refused_where_it_is_solved(name, horizon):
    table = cai.tabulate(models.ledge(horizon=horizon, discount=0.9))
    learnt = torch.nn.Parameter(getattr(table, name).clone())
    table = dataclasses.replace(table, **{name: learnt})
    with torch.no_grad():
        learnt.view(-1)[0] = math.nan
    with pytest.raises(ValueError, match=f"^{name}: expected numbers below .* got nan at"):
        inference.differentiable_values(table, 1.0)


@pytest.mark.parametrize("name", ["temperature", "discount", "horizon"])
def test_a_table_of_no_numbers(name):
    with pytest.raises(ValueError, match=f"{name}: expected"):
        dataclasses.replace(TABLE, **{name: math.nan})


@pytest.mark.parametrize(
    ("name", "value"),
    [("reward", torch.zeros(3)), ("log_prior", None), ("log_dynamics", torch.zeros(2, 2))],
)
def test_a_table_whose_arrays_do_not_fit(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected .* of shape"):
        dataclasses.replace(TABLE, **{name: value})


def test_rewards_under_vmap_cannot_be_looked_at_and_are_let_pass():
    rewards = torch.stack([TABLE.reward, TABLE.reward + 1])
    made = torch.func.vmap(lambda r: dataclasses.replace(TABLE, reward=r).reward.sum())(rewards)
    assert torch.equal(made, rewards.sum((1, 2)))


@pytest.mark.parametrize("solve", [inference.soft_values, inference.posterior])
def test_a_solution_with_nan_in_its_values(solve):
    solution = solve(TABLE)
    values = solution.log_values.clone()
    values[1, 0] = math.nan
    with pytest.raises(ValueError, match=r"log_values: .* NaN at index \[1, 0\]"):
        dataclasses.replace(solution, log_values=values)


def with_(**changes):
    return dataclasses.replace(WALK, **changes)


ASTRAY = {  # where trajectories lead, though not where a model looks when it is made
    "reward": with_(reward=lambda s, a: torch.where(s > 1.5, math.nan, -(s**2))),
    "at the end": with_(final_reward=lambda s: torch.where(s > 1.5, math.nan, 0.0)),
    "on arrival": with_(arrival_reward=lambda s, a, after: torch.where(after > 1.5, math.nan, 0.0)),
    "dynamics": with_(
        dynamics=lambda s, a: dist.Normal(
            torch.where(s > 1.2, math.nan, 0.9 * s + 0.5 * a), 0.1, validate_args=False
        )
    ),
    "prior": with_(
        action_prior=lambda s: dist.Normal(
            torch.where(s > 1.2, math.nan, 0 * s), 1.0, validate_args=False
        )
    ),
}


@pytest.mark.parametrize("name", ASTRAY)
@pytest.mark.parametrize("taker", ["evaluate", "compare", "importance", "bracket", "renyi", "smc"])
def test_nan_that_only_trajectories_meet(name, taker):
    def ahead(t, s):
        return dist.Normal(0 * s + 2.0, 1.0)

    with pytest.raises(ValueError, match=r"NaN|finite parameters|drawn from") as error:
        TAKERS[taker](ASTRAY[name], ahead)
    assert "\n" not in str(error.value)


def test_a_value_function_and_a_twist_with_nan():
    def value(t, s):
        return torch.where(torch.as_tensor(t) == 2, math.nan, 9.0) + 0 * s

    def prior(t, s):
        return WALK.prior(s)

    with pytest.raises(ValueError, match="value: expected numbers, got NaN at step 2"):
        inference.evidence_bracket(WALK, prior, samples=20, group_size=5, value=value)
    with pytest.raises(ValueError, match="value: expected numbers, got NaN at step 2"):
        cai.compare(WALK, {"prior": prior}, value=value)
    with pytest.raises(ValueError, match="twist: expected numbers, got NaN at step 2"):
        inference.smc(WALK, 10, twist=value)


@pytest.mark.parametrize("place", range(3))
def test_a_linear_gaussian_policy_from_matrices_with_nan(place):
    matrices = [0 * ONE, ONE[0], ONE]
    matrices[place] = matrices[place] * math.nan
    with pytest.raises(ValueError, match=r"(gains|offsets|covariance): expected numbers, got NaN"):
        cai.LinearGaussianPolicy.from_matrices(*matrices)


def test_a_prior_with_nan():
    prior = dist.MultivariateNormal(ONE[0] * math.nan, ONE, validate_args=False)
    with pytest.raises(ValueError, match="action_prior, mean: expected numbers, got NaN"):
        dataclasses.replace(SYSTEM, action_prior=prior)


def test_what_is_averaged_over_weights():
    sample = importance(LEDGE, cai.TabularPolicy(LEDGE))
    values = sample.trajectories.returns.clone()
    values[3] = math.nan
    with pytest.raises(ValueError, match=r"values: expected numbers, got NaN at index \[3\]"):
        sample.mean(values)

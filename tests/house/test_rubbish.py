"""Whatever is passed for whatever argument: an answer, or a ValueError of one line."""

import dataclasses
import functools
import inspect
import math

import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models, plot

ONE = torch.eye(2, dtype=torch.float64)
LEDGE = models.ledge()
TABLE = cai.tabulate(LEDGE)
ENDLESS = dataclasses.replace(LEDGE, horizon=None)
MORTAL = dataclasses.replace(ENDLESS, discount=0.9)
POLICY = cai.TabularPolicy(LEDGE)
EXACT = inference.posterior(TABLE)
CAREFUL = inference.soft_values(TABLE)
PATHS = LEDGE.simulate(POLICY, 5, seed=0)
SAMPLE = inference.importance(LEDGE, POLICY, 30)
SYSTEM = models.linear_gaussian(
    A=ONE,
    B=ONE,
    noise=ONE,
    Q=ONE,
    R=ONE,
    horizon=3,
    action_prior=dist.MultivariateNormal(ONE[0], ONE),
)

SWING = models.pendulum(horizon=2)

HOME = int((PATHS.states[0] == PATHS.states[0, -1]).int().argmax())
HOMEWARD = PATHS.states[0, : HOME + 1].tolist(), PATHS.actions[0, :HOME].tolist()


def fails(*_, **__):
    return 1 / 0


RUBBISH = {
    "None": None,
    "minus one": -1,
    "half": 0.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "huge": 10**30,
    "complex": 1j,
    "word": "x",
    "list": [0.5],
    "pair": (1, 2),
    "nothing": [],
    "mapping": {"a": 1},
    "set": {1},
    "object": object(),
    "class": int,
    "fails": fails,
    "takes nothing": lambda: 1,
    "says None": lambda *_: None,
    "array": torch.full((2, 3), math.nan),
    "no array": torch.zeros(0),
    "complex array": torch.zeros(2, dtype=torch.complex64),
    "sparse": torch.eye(3).to_sparse(),
    "distribution": dist.Normal(0.0, 1.0),
    "table": TABLE,
    "system": SYSTEM,
    "policy": POLICY,
    "solution": EXACT,
}

fit = functools.partial(inference.fit, steps=2, samples=4, progress=False)
TAKERS = {
    "evaluate": (cai.evaluate, {"model": LEDGE, "policy": POLICY, "samples": 4, "seed": 0}),
    "compare": (cai.compare, {"model": LEDGE, "methods": {"x": POLICY}, "value": None}),
    "collapse": (cai.collapse, {"model": LEDGE}),
    "with_prior": (cai.with_prior, {"model": LEDGE, "policy": POLICY}),
    "tabulate": (cai.tabulate, {"model": LEDGE}),
    "tabulate_rewards": (cai.tabulate_rewards, {"model": LEDGE, "table": TABLE}),
    "TabularPolicy": (cai.TabularPolicy, {"model": LEDGE, "stationary": False, "observe": None}),
    "from_log_probs": (cai.TabularPolicy.from_log_probs, {"log_probs": TABLE.log_prior}),
    "on_grid": (
        cai.on_grid,
        {
            "model": SWING,
            "states": [torch.linspace(-3, 3, 5), torch.linspace(-8, 8, 4)],
            "actions": [torch.linspace(-2, 2, 3)],
            "periodic": [True, False],
        },
    ),
    "NeuralPolicy": (
        functools.partial(cai.NeuralPolicy, LEDGE),
        {"hidden": (2,), "network": None, "head": None, "observe": None, "stationary": False},
    ),
    "RecurrentPolicy": (cai.RecurrentPolicy, {"model": LEDGE, "memory": 2, "hidden": (2,)}),
    "LatentPolicy": (
        cai.LatentPolicy,
        {"model": LEDGE, "latent": dist.Categorical(ONE[0] + 1), "per": "step", "hidden": (2,)},
    ),
    "HistoryPolicy": (cai.HistoryPolicy, {"model": LEDGE, "observe": None}),
    "Plan": (cai.Plan, {"model": LEDGE, "head": None}),
    "GaussianPlan": (cai.GaussianPlan, {"model": SYSTEM}),
    "LinearGaussianPolicy": (cai.LinearGaussianPolicy, {"model": SYSTEM, "stationary": False}),
    "from_matrices": (
        cai.LinearGaussianPolicy.from_matrices,
        {"gains": ONE, "offsets": ONE[0], "covariance": ONE},
    ),
    "DynamicsGuide": (cai.DynamicsGuide, {"model": LEDGE, "optimism": 1.0}),
    "EmpiricalStates": (cai.EmpiricalStates, {"states": torch.zeros(3)}),
    "simulate": (LEDGE.simulate, {"policy": POLICY, "samples": 3, "seed": 0}),
    "rollout": (lambda policy: LEDGE.rollout(policy)(), {"policy": POLICY}),
    "draw_step": (functools.partial(SYSTEM.draw_step, 0), {"s": ONE}),
    "with_auxiliary": (
        LEDGE.with_auxiliary,
        {"policy": cai.LatentPolicy(LEDGE, dist.Categorical(ONE[0] + 1))},
    ),
    "dynamics": (EXACT.dynamics, {"t": 0}),
    "tilt": (EXACT.tilt, {"t": 0}),
    "at": (EXACT.at, {"t": 0}),
    "sample": (EXACT.sample, {"samples": 3, "seed": 0}),
    "marginal": (lambda site: EXACT.marginal(site), {"site": "s_1"}),
    "posterior": (inference.posterior, {"model": LEDGE, "observed": {"s_2": 2}, "optimal": None}),
    "soft_values": (inference.soft_values, {"model": LEDGE, "optimism": 0.0}),
    "belief_values": (inference.belief_values, {"model": LEDGE, "observe": None}),
    "differentiable_bound": (
        inference.differentiable_bound,
        {"table": TABLE, "optimism": 0.0, "rule": "soft"},
    ),
    "differentiable_values": (
        inference.differentiable_values,
        {"table": TABLE, "optimism": 0.0, "rule": "soft"},
    ),
    "log_likelihood": (inference.log_likelihood, {"table": TABLE, "demonstrations": PATHS}),
    "compose": (inference.compose, {"solutions": [EXACT, EXACT], "weights": [0.5, 0.5]}),
    "critic": (
        inference.critic_gradient,
        {"model": LEDGE, "policy": POLICY, "samples": 4, "lam": 1.0},
    ),
    "ceiling": (inference.effective_sample_ceiling, {"model": LEDGE}),
    "compose_rewards": (
        inference.compose_rewards,
        {"solutions": [CAREFUL, CAREFUL], "weights": [0.5, 0.5]},
    ),
    "divergence_budget": (inference.divergence_budget, {"model": LEDGE, "nats": 0.1}),
    "enumeration": (inference.enumeration, {"model": LEDGE, "policy": None}),
    "bracket": (
        inference.evidence_bracket,
        {"model": LEDGE, "policy": POLICY, "samples": 8, "group_size": 2, "value": None, "seed": 0},
    ),
    "factorised_plan": (inference.factorised_plan, {"model": LEDGE}),
    "fit": (
        fit,
        {
            "model": LEDGE,
            "policy": POLICY,
            "estimator": "auto",
            "optimism": 0.0,
            "samples": 4,
            "learning_rate": None,
            "optimizer": None,
            "schedule": None,
            "clip": None,
            "temperature": None,
            "tolerance": 1e-6,
            "every": 100,
            "device": "cpu",
            "seed": 0,
            "progress": False,
        },
    ),
    "gaussian_plan": (inference.gaussian_plan, {"model": SYSTEM}),
    "goal_values": (inference.goal_values, {"model": MORTAL, "goals": [1]}),
    "count_transitions": (inference.count_transitions, {"model": TABLE, "paths": [HOMEWARD]}),
    "importance": (
        inference.importance,
        {"model": LEDGE, "policy": POLICY, "samples": 30, "seed": 0},
    ),
    "intent": (
        inference.intent,
        {
            "models": {"a": LEDGE, "b": EXACT},
            "prefix": PATHS,
            "prior": [1.0, 2.0],
            "optimism": 0.0,
            "rule": "soft",
            "likelihood": "paths",
            "progress": False,
        },
    ),
    "intent of rubbish": (lambda model: inference.intent({"a": model}, PATHS), {"model": LEDGE}),
    "policy of rubbish": (
        lambda policy: inference.intent({"a": policy}, PATHS, likelihood="actions"),
        {"policy": POLICY},
    ),
    "marginal of a belief": (
        lambda place: inference.intent({("a", 1): LEDGE}, PATHS).marginal(place),
        {"place": 0},
    ),
    "one of a belief": (inference.intent({"a": LEDGE}, PATHS).__getitem__, {"which": 0}),
    "mean": (SAMPLE.mean, {"values": torch.zeros(30)}),
    "optimism_range": (inference.optimism_range, {"model": SYSTEM}),
    "optimism_curve": (
        inference.optimism_curve,
        {"model": LEDGE, "optimisms": [0.0, 1.0], "steps": (0,), "least_visit": 0.01},
    ),
    "pareto_k": (inference.pareto_k, {"log_weights": SAMPLE.log_weights}),
    "pareto_threshold": (inference.pareto_threshold, {"samples": 30}),
    "price_ladder": (inference.price_ladder, {"model": LEDGE, "observe": None}),
    "renyi_bound": (
        inference.renyi_bound,
        {"model": LEDGE, "policy": POLICY, "optimism": 0.5, "samples": 4, "seed": 0},
    ),
    "renyi_elbo": (inference.renyi_elbo, {"optimism": 0.5, "samples": 2}),
    "RolloutELBO": (inference.RolloutELBO, {"estimator": "auto", "samples": 4}),
    "hessian": (
        inference.reward_hessian_vector_product,
        {"table": TABLE, "direction": TABLE.reward, "optimism": 0.0},
    ),
    "robust": (inference.robust, {"model": LEDGE, "budget": 0.1, "tolerance": 0.1}),
    "smc": (
        inference.smc,
        {
            "model": LEDGE,
            "particles": 4,
            "twist": None,
            "proposal": None,
            "seed": 0,
            "ess_threshold": 0.5,
        },
    ),
}


def raised(take):
    """None for an answer, "one line" for a ValueError of one line, else the words."""
    try:
        take()
    except ValueError as error:
        return "one line" if "\n" not in str(error) else str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TAKERS)
def test_an_answer_or_one_line(name):
    take, good = TAKERS[name]
    assert good.keys() <= inspect.signature(take).parameters.keys()
    take(**good)
    for argument in good:
        for what, value in RUBBISH.items():
            wrong = raised(functools.partial(take, **{**good, argument: value}))
            assert wrong is None or wrong == "one line", f"{argument}={what}: {wrong}"


@pytest.mark.parametrize(
    ("take", "said"),
    [
        (lambda: cai.evaluate(None, POLICY), r"model: expected .*, got NoneType"),
        (lambda: cai.compare(LEDGE, [POLICY]), r"methods: .* got a list"),
        (lambda: inference.posterior(LEDGE, [("s_1", 1)]), r"observed: .* got list"),
        (lambda: inference.optimism_curve(LEDGE, steps=[0.5]), r"steps: .* got 0.5"),
        (lambda: inference.importance(LEDGE, POLICY, seed=0.5), r"seed: .* got 0.5"),
        (lambda: fit(LEDGE, POLICY, estimator=fails), r"estimator: .* raised ZeroDivisionError"),
        (lambda: fit(LEDGE, POLICY, estimator=lambda *_: fails), r"estimator: .* raised ZeroDiv"),
        (lambda: fit(LEDGE, POLICY, estimator=lambda *_: lambda: "x"), r"estimator: .* got str"),
        (lambda: fit(LEDGE, POLICY, estimator=lambda *_: lambda: 1.0), r"estimator: .* none"),
        (lambda: fit(LEDGE, POLICY, optimizer=fails), r"optimizer: .* raised ZeroDivisionError"),
        (lambda: fit(LEDGE, POLICY, temperature=fails), r"temperature: .* raised ZeroDivision"),
        (lambda: cai.TabularPolicy(LEDGE, stationary="no"), r"stationary: expected True or False"),
        (lambda: inference.compose([1, 2], [0.5, 0.5]), r"solutions: expected a list of solutions"),
        (
            lambda: inference.differentiable_bound(LEDGE),
            r"table: .* got TrajectoryModel; take cai.tabulate",
        ),
        (lambda: inference.count_transitions(TABLE, [([0, 3.5], [1])]), r"paths, .* whole numbers"),
    ],
)
def test_the_words(take, said):
    with pytest.raises(ValueError, match=said):
        take()


@pytest.mark.parametrize(
    ("draw", "argument"),
    [
        (plot.comparison, "report"),
        (plot.occupancy, "report"),
        (plot.policies, "report"),
        (plot.losses, "fitted"),
        (plot.graphical_model, "model"),
        (plot.optimism_curve, "curve"),
        (plot.price_ladder, "ladder"),
        (plot.intent, "belief"),
    ],
)
def test_what_a_figure_is_drawn_of(draw, argument):
    for value in (None, 3, "x", [], {}, EXACT, int):
        with pytest.raises(
            ValueError, match=rf"^{argument}: expected a.*, got {type(value).__name__}"
        ):
            draw(value)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (2,), (3, 2), (4, 3)])
def test_a_plan_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"log_probs: expected shape \[4, 2\], got"):
        cai.Plan.of(LEDGE, torch.zeros(shape))


# What memory cannot hold.


def ring(S, horizon=2):
    """S states in a ring, a step or none."""
    return cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(S)),
        dynamics=lambda s, a: dist.Delta((s + a) % S),
        reward=-1.0,
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=horizon,
    )


@pytest.fixture
def small(monkeypatch):
    """A machine of 100 MB, so that nothing has to be large to be too large."""
    monkeypatch.setattr("cai.numerics.memory.installed", lambda: 1e8)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: inference.posterior(ring(4000)).dynamics(0), "256 MB"),
        (lambda: cai.DynamicsGuide(ring(2000)), "256 MB"),
        (lambda: cai.TabularPolicy(ring(4000, 2000)), "128 MB"),
        (lambda: cai.evaluate(ring(4000, 2000), lambda t, s: None), "128 MB"),
        (lambda: ring(3).simulate(lambda t, s: None, 10**7), "240 MB"),
        (lambda: cai.RecurrentPolicy(ring(3), memory=3000), "216 MB"),
        (lambda: inference.soft_values(models.ledge(horizon=10**7)), "400 MB"),
        (lambda: inference.soft_values(models.ledge(horizon=10**7), rule="hard"), "400 MB"),
        (lambda: inference.posterior(models.ledge(horizon=10**7)), "400 MB"),
        (lambda: inference.map_trajectory(models.ledge(horizon=10**7)), "400 MB"),
        (lambda: inference.optimism_curve(models.ledge(horizon=10**7), [0.0]), "400 MB"),
        (lambda: inference.soft_values(dataclasses.replace(SYSTEM, horizon=10**7)), "1.36 GB"),
        (lambda: inference.factorised_plan(models.ledge(horizon=10**6)), "256 MB"),
        (lambda: inference.smc(models.ledge(), 10**7), "400 MB"),
        (lambda: cai.NeuralPolicy(LEDGE, hidden=(5000, 5000)), "200 MB"),
        (lambda: cai.LatentPolicy(LEDGE, LEDGE.initial, hidden=(5000, 5000)), "201 MB"),
        (lambda: cai.Plan(models.ledge(horizon=10**7)), "160 MB"),
        (lambda: cai.GaussianPlan(models.pendulum(horizon=4000)), "128 MB"),
        (lambda: cai.TabularPolicy(models.ledge(horizon=10**7), observe=cai.blind), "160 MB"),
        (lambda: cai.LinearGaussianPolicy(dataclasses.replace(SYSTEM, horizon=10**7)), "1.12 GB"),
        (lambda: inference.sample_plans(SYSTEM, optimism=0.0, noises=2 * 10**7), "1.28 GB"),
    ],
)
def test_what_memory_cannot_hold_is_said_in_bytes(make, size):
    with pytest.raises(ValueError, match=rf"what fits into the memory of 100 MB, got .*, {size}; "):
        make()


def test_what_memory_holds_is_made():
    assert inference.posterior(ring(50)).dynamics(0).shape == (50, 2, 50)

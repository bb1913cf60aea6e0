"""Models, policies and results come out of pickle, deepcopy and other processes as they went in."""

import copy
import dataclasses
import functools
import inspect
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch

import cai
from cai import inference, models

HALF = np.full((2, 2, 2), 0.5)
PAID = [[0.0, -1.0], [-2.0, 0.0]]
LISTS = np.array([[[0, 1], [1, 0]]] * 2)


def line(horizon=3):
    return models.linear_gaussian(
        [[1.0]],
        [[1.0]],
        horizon=horizon,
        noise=[[0.1]],
        Q=[[1.0]],
        R=[[1.0]],
        action_prior=dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
    )


MODELS = {
    "cartpole": lambda: models.cartpole(horizon=3),
    "cartpole, a force": lambda: models.cartpole(horizon=3, continuous=True, noise=0.01),
    "double_integrator": lambda: models.double_integrator(horizon=3),
    "gridworld": lambda: models.gridworld("bridge", horizon=4, wind=0.2),
    "gridworld without slip": lambda: models.gridworld("bridge", horizon=4, slip=0.0),
    "gym": lambda: models.gym("FrozenLake-v1", horizon=4),
    "ledge": models.ledge,
    "linear_gaussian": line,
    "linearly_solvable": lambda: models.linearly_solvable(
        [[0.5, 0.5], [0.0, 1.0]], [1.0, 0.0], horizon=3, exit_cost=2.0, final_cost=1.0
    ),
    "lottery": lambda: models.lottery(horizon=3),
    "multigoal": lambda: models.multigoal(horizon=3),
    "multigoal without end": lambda: models.multigoal(horizon=3, goal_reward=None, noise=0.2),
    "pendulum": lambda: models.pendulum(horizon=3, noise=0.1),
    "road_network": lambda: models.road_network([0, 0, 1], [1, 2, 2], -1.0, goals=2, horizon=3),
    "tabular": lambda: models.tabular(
        HALF,
        PAID,
        horizon=3,
        arrival_reward=HALF,
        final_reward=[0.0, 1.0],
        action_prior=[[0.5, 0.5], [0.9, 0.1]],
    ),
    "tabular, listed": lambda: models.tabular(
        HALF, PAID, horizon=3, successors=LISTS, arrival_reward=HALF, discount=0.9
    ),
    "tabular, sparse": lambda: models.tabular(
        [scipy.sparse.csr_matrix(HALF[:, 0])] * 2, PAID, horizon=3
    ),
    "collapsed": lambda: cai.collapse(models.ledge()),
    "with a prior": lambda: cai.with_prior(
        models.ledge(), inference.soft_values(models.ledge()).policy
    ),
    "of steps": lambda: cai.collapse(oracles.random_steps(0).model()),
    "collapsed to lists": lambda: cai.collapse(models.gridworld("bridge", horizon=4)),
    "changed": lambda: dataclasses.replace(models.ledge(), temperature=0.5),
    "many starts": lambda: dataclasses.replace(
        models.pendulum(horizon=3), initial=cai.EmpiricalStates(torch.zeros(3, 2).double())
    ),
    "with latents": lambda: models.ledge().with_auxiliary(latent()),
}


def latent():
    return cai.LatentPolicy(models.ledge(), dist.Categorical(torch.ones(2)))


POLICIES = {
    "TabularPolicy": lambda: (models.ledge(), cai.TabularPolicy(models.ledge())),
    "NeuralPolicy": lambda: (models.ledge(), cai.NeuralPolicy(models.ledge())),
    "NeuralPolicy that sees little": lambda: (
        models.ledge(),
        cai.NeuralPolicy(models.ledge(), observe=half),
    ),
    "NeuralPolicy of a torque": lambda: (
        models.pendulum(horizon=3),
        cai.NeuralPolicy(models.pendulum(horizon=3)),
    ),
    "GaussianHead": lambda: with_head(cai.GaussianHead("full")),
    "MixtureHead": lambda: with_head(cai.MixtureHead(3)),
    "FlowHead": lambda: with_head(
        cai.FlowHead(dist.transforms.conditional_spline(2, 4), context=4)
    ),
    "NoiseHead": lambda: with_head(cai.NoiseHead(4, (8,))),
    "CategoricalHead": lambda: (
        models.ledge(),
        cai.NeuralPolicy(models.ledge(), head=cai.CategoricalHead()),
    ),
    "RecurrentPolicy": lambda: (models.ledge(), cai.RecurrentPolicy(models.ledge())),
    "TabularPolicy that sees little": lambda: (
        models.ledge(),
        cai.TabularPolicy(models.ledge(), observe=half),
    ),
    "LatentPolicy": lambda: (models.ledge(), latent()),
    "Plan": lambda: (models.ledge(), cai.Plan(models.ledge())),
    "GaussianPlan": lambda: (
        models.pendulum(horizon=3),
        cai.GaussianPlan(models.pendulum(horizon=3)),
    ),
    "HistoryPolicy": lambda: (models.ledge(), cai.HistoryPolicy(models.ledge(), observe=half)),
    "DynamicsGuide": lambda: (models.ledge(), cai.DynamicsGuide(models.ledge(), 0.5).policy),
    "LinearGaussianPolicy": lambda: (line(), cai.LinearGaussianPolicy(line())),
    "of a solution": lambda: (models.ledge(), inference.posterior(models.ledge()).policy),
    "of a Gaussian solution": lambda: (line(), inference.posterior(line()).policy),
}


def half(s):
    return s // 2


def with_head(head):
    model = models.multigoal(horizon=3)
    return model, cai.NeuralPolicy(model, head=head)


def exact():
    return inference.posterior(models.ledge())


def stopped():
    policy = cai.TabularPolicy(models.ledge())
    return inference.FitStopped("stopped at step 1", 1, "a_0", policy, torch.zeros(1))


def learner_stopped():
    learnt = inference.soft_q(models.ledge(), steps=64, progress=False)
    return inference.LearningStopped("soft_q", 64, 128, "in vain", learnt)


def learnt_by(method):
    seen = cai.Demonstrations.from_paths([[0, 1, 2, 3, 3]], [[1, 1, 1, 0]])
    reward = cai.LinearReward({"state": torch.arange(5.0).view(5, 1)})
    return method(models.ledge(), seen, reward, progress=False)


def locally_learnt():
    paths = line().simulate(lambda t, s: line().prior(s), 3, seed=0)
    reward = cai.LinearReward({"squares": squares})
    return inference.laplace_reward(line(), paths, reward, progress=False)


def squares(s, a):
    return -s.square().sum(-1)


def moves():
    paths = exact().sample(3, 0)
    home = [(s, a) for s, a in zip(paths.states, paths.actions, strict=True) if s[-1] == 3]
    return inference.count_transitions(models.ledge(), home)


def fitted_optimism():
    seen = cai.Demonstrations.from_trajectories(exact().sample(20, 0))
    reward = cai.LinearReward({"state": torch.arange(5).double().unsqueeze(1)})
    return inference.fit_optimism(cai.tabulate(models.ledge()), seen, reward)


def fitted_reward():
    model = models.ledge()
    seen = cai.Demonstrations.from_trajectories(exact().sample(20, 0))
    reward = cai.LinearReward({"state": torch.arange(5).double().unsqueeze(1)})
    return inference.fit_reward(cai.tabulate(model), seen, reward)


def reward_posteriors(groups):
    paths = exact().sample(20, 0)
    who = ["Ann", "Bob"] * 10
    seen = cai.Demonstrations.from_trajectories(paths, groups=who)
    reward = cai.LinearReward({"state": torch.arange(5).double().unsqueeze(1)})
    table, prior = cai.tabulate(models.ledge()), torch.distributions.Normal(0.0, 1.0)
    given = {"samples": 25, "progress": False}
    return inference.reward_posterior(table, seen, reward, prior, groups=groups, **given)


def reward_program():
    seen = cai.Demonstrations.from_trajectories(exact().sample(20, 0))
    reward = cai.LinearReward({"state": torch.arange(5).double().unsqueeze(1)})
    table, prior = cai.tabulate(models.ledge()), torch.distributions.Normal(0.0, 1.0)
    return inference.reward_program(table, seen, reward, prior)


def route_comparison():
    fork = models.streets_from_columns(
        {"tail": list("oaabc"), "head": list("abccd"), "minutes": [1.0, 1.0, 2.5, 1.0, 1.0]}
    )
    rows = {"trip": [0] * 4 + [1] * 3, "u": list("oabcoac"), "v": list("abcdacd")}
    trips = fork.demonstrations(rows, segment=("u", "v"))
    return inference.route_table(fork, trips, trips)


def ledge_walks():
    return cai.Demonstrations.from_trajectories(exact().sample(3, 0))


def trained_reward():
    seen = cai.Demonstrations.from_trajectories(exact().sample(20, 0))
    table = cai.tabulate(models.ledge())
    return inference.fit_reward(table, seen, cai.TabularReward(), steps=3, progress=False)


def sampled_reward():
    table = cai.tabulate(models.ledge())
    seen = cai.Demonstrations.from_trajectories(exact().sample(20, 0))
    reward = cai.LinearReward({"all": torch.arange(10.0).view(5, 2)})
    return inference.sampled_reward(table, seen, reward, samples=50, progress=False)


def adversarial_reward():
    table = cai.tabulate(models.ledge())
    return inference.adversarial_reward(table, exact().policy, rounds=3, progress=False)


def used_objective():
    model = models.ledge()
    objective, policy = inference.RolloutELBO("score", samples=4), cai.TabularPolicy(model)
    objective.loss_and_grads(model, model.rollout(policy))
    return objective


def swept():
    return cai.sweep(models.ledge, {"temperature": [0.5, 1.0]}, {"a": inference.posterior}, seeds=2)


RESULTS = {
    "AverageReward": lambda: inference.average_reward(models.tabular(HALF, PAID, horizon=None)),
    "BeliefSolution": lambda: inference.belief_values(models.ledge()),
    "PolicySwitch": lambda: inference.PolicySwitch(0.5, 0, 0, 1, 0),
    "CheckpointedSolution": lambda: inference.soft_values(models.ledge(), recompute=True),
    "Comparison": lambda: cai.compare(models.ledge(), {"posterior": exact()}),
    "ComposedRewards": lambda: inference.compose_rewards(
        [inference.soft_values(models.ledge())] * 2, [0.5, 0.5]
    ),
    "DivergenceBudget": lambda: inference.divergence_budget(models.ledge(), 0.1),
    "Enumeration": lambda: inference.enumeration(models.ledge()),
    "Evaluation": lambda: cai.evaluate(models.ledge(), cai.TabularPolicy(models.ledge())),
    "EvidenceBracket": lambda: inference.evidence_bracket(
        models.ledge(), cai.TabularPolicy(models.ledge()), samples=20, group_size=2
    ),
    "FactorisedPlan": lambda: inference.factorised_plan(models.ledge()),
    "Fit": lambda: inference.fit(
        models.ledge(), cai.NeuralPolicy(models.ledge(), hidden=(3,)), steps=2, progress=False
    ),
    "FitStopped": stopped,
    "Gaussian": lambda: inference.posterior(line()).initial,
    "GaussianPlans": lambda: inference.gaussian_plan(line()),
    "GaussianSolution": lambda: inference.soft_values(line()),
    "GoalValues": lambda: inference.goal_values(models.gridworld("bridge", horizon=None), [3]),
    "GridSolution": lambda: cai.on_grid(
        models.pendulum(horizon=2),
        states=[torch.linspace(-3, 3, 5), torch.linspace(-8, 8, 4)],
        actions=[torch.linspace(-2, 2, 3)],
    ),
    "ImportanceSample": lambda: inference.importance(
        models.ledge(), cai.TabularPolicy(models.ledge()), 20
    ),
    "Layout": lambda: models.ledge().layout,
    "LinearMap": lambda: line().step(0),
    "LinearValues": lambda: inference.linear_system(models.ledge(horizon=None)),
    "MapTrajectory": lambda: inference.map_trajectory(models.ledge()),
    "SolutionStep": lambda: exact().at(1),
    "TransitionCounts": moves,
    "OptimismCurve": lambda: inference.optimism_curve(models.ledge(), [0.0, 1.0]),
    "ParticlePosterior": lambda: inference.smc(models.ledge(), particles=20),
    "PlanSamples": lambda: inference.sample_plans(
        models.pendulum(horizon=2), samples=4, warmup=1, chains=1, progress=False
    ),
    "PriceLadder": lambda: inference.price_ladder(models.ledge()),
    "Quadratic": lambda: line().reward_form,
    "RenyiBound": lambda: inference.renyi_bound(
        models.ledge(), cai.TabularPolicy(models.ledge()), 0.5
    ),
    "RobustSolution": lambda: inference.robust(models.ledge(), 0.1),
    "RolloutELBO": used_objective,
    "Row": lambda: cai.compare(models.ledge(), {"posterior": exact()}).rows["posterior"],
    "Solution": exact,
    "Stationary": lambda: inference.soft_values(models.ledge(horizon=None)),
    "SparseCategorical": lambda: cai.SparseCategorical(torch.zeros(2), torch.tensor([3, 1]), 5),
    "Table": lambda: cai.tabulate(models.gridworld("bridge")),
    "Trajectories": lambda: exact().sample(3, 0),
    "Demonstrations": lambda: cai.Demonstrations.from_paths([[0, 1]], [[1]], groups=["a"]),
    "LinearReward": lambda: cai.LinearReward({"all": torch.ones(5, 2)}).weighted([1.0]),
    "NeuralReward": lambda: cai.NeuralReward(torch.nn.Bilinear(1, 1, 1)),
    "TabularReward": lambda: cai.TabularReward(values=torch.ones(5, 2)),
    "RewardFit": fitted_reward,
    "MaxMargin": lambda: learnt_by(inference.max_margin),
    "FeatureMatching": lambda: learnt_by(inference.feature_matching),
    "LaplaceReward": locally_learnt,
    "RewardPosterior": lambda: reward_posteriors(False),
    "GroupPosterior": lambda: reward_posteriors(True),
    "RewardProgram": reward_program,
    "RewardTraining": lambda: inference.RewardTraining(patience=3),
    "SampledReward": sampled_reward,
    "AdversarialReward": adversarial_reward,
    "AdversarialTraining": lambda: inference.AdversarialTraining(steps=2_000),
    "TrainedReward": trained_reward,
    "OptimismFit": fitted_optimism,
    "Routes": lambda: inference.Routes(
        models.city(4, 4), ("minutes",), torch.tensor([-9.0]).double(), torch.tensor([3])
    ),
    "RouteTable": route_comparison,
    "Intent": lambda: inference.intent({"a": models.ledge(), "b": models.ledge()}, ledge_walks()),
    "Streets": lambda: models.city(4, 4),
    "Learned": lambda: inference.soft_q(models.ledge(), steps=200, progress=False),
    "LearningStopped": learner_stopped,
    "AutomaticTemperature": lambda: inference.AutomaticTemperature(0.3),
    "SweepResult": swept,
    "SweepCell": lambda: swept().cells[0],
    "ZLearning": lambda: inference.z_learning(
        models.ledge(horizon=None), episodes=2, steps=3, progress=False
    ),
}


def pickled(x):
    return pickle.loads(pickle.dumps(x))


WAYS = {"pickle": pickled, "deepcopy": copy.deepcopy}


def answers(model):
    """Numbers that depend on all of a model."""
    if isinstance(model, cai.LinearGaussian):
        return inference.posterior(model).bound
    paths = model.simulate(lambda t, s: model.prior(s, t), 5, seed=0)
    found = [paths.states.tolist(), paths.actions.tolist(), paths.returns.tolist()]
    if not paths.states.is_floating_point() and model.auxiliary is None:
        found.append(inference.posterior(model).bound)
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_models_give_the_same_answers(name, way):
    model = MODELS[name]()
    assert answers(WAYS[way](model)) == answers(model)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", POLICIES)
def test_policies_act_the_same_way(name, way):
    model, policy = POLICIES[name]()
    shaken = getattr(policy, "parameters", list)()
    with torch.no_grad():
        for x in shaken:
            x.add_(0.1 * torch.randn_like(x))
    pair = policy, WAYS[way](policy)
    one, other = (model.simulate(acting, 20, seed=1) for acting in pair)
    assert torch.equal(one.actions, other.actions)
    if name != "NoiseHead":  # which has no density
        one, other = (inference.importance(model, acting, 20, seed=1) for acting in pair)
        assert torch.equal(one.log_weights, other.log_weights)


def content(x):
    """What an object holds, as plain numbers and words; the same for the same content."""
    if isinstance(x, torch.Tensor | np.ndarray):
        return repr(x.tolist())
    if scipy.sparse.issparse(x):
        return repr(x.toarray().tolist())
    if isinstance(x, dict):
        return {str(k): content(v) for k, v in x.items() if k not in ("program", "lu", "_built")}
    if isinstance(x, torch.nn.Module):
        return type(x).__name__, content(x.state_dict())
    if dataclasses.is_dataclass(x):
        return type(x).__name__, content(
            {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
        )
    if isinstance(x, list | tuple):
        return [content(v) for v in x]
    if x is None or isinstance(x, str | float | int) or callable(x) or not hasattr(x, "__dict__"):
        return type(x).__name__ if callable(x) else repr(x)
    return type(x).__name__, content(x.__dict__)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RESULTS)
def test_results_hold_the_same_numbers(name, way):
    result = RESULTS[name]()
    assert type(result).__name__ == name
    assert content(WAYS[way](result)) == content(result)


def test_a_factorisation_that_was_pickled_solves_the_same_system():
    found = inference.linear_system(models.ledge(horizon=None))
    start = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    again = pickled(found)
    assert torch.equal(again.expected_visits(start), found.expected_visits(start))
    assert again.error == found.error


def test_what_a_sweep_keeps_for_the_next_stays_at_home():
    """Its weights may be many, and can be computed again."""
    solution = inference.soft_values(cai.tabulate(models.gridworld("bridge")), optimism=0.5)
    assert solution.weights is not None
    copies = [way(solution) for way in WAYS.values()]
    for again in copies:
        assert again.weights is None
        assert again.imagined_return == solution.imagined_return


def test_an_objective_that_was_pickled_goes_on():
    model = models.ledge()
    policy, objective = cai.TabularPolicy(model), pickled(used_objective())
    assert objective.loss_and_grads(model, model.rollout(policy)) < 10
    assert policy.logits.grad is not None


def test_estimators_with_options_and_guides_can_be_pickled():
    model, policy = models.ledge(), cai.NeuralPolicy(models.ledge())
    estimator = pickled(functools.partial(inference.critic_gradient, lam=0.5))
    for continuous in (model, models.pendulum(horizon=3)):
        acting = cai.NeuralPolicy(continuous)
        made, losses = estimator(continuous, acting, 4), []
        for one in (pickled(made), made):
            for _ in range(2):  # the critic of the first is in the advantages of the second
                torch.manual_seed(0)
                losses.append(one())
        assert losses[:2] == losses[2:]
    guide = pickled(model.rollout(policy))
    with torch.no_grad():
        torch.manual_seed(0)
        guide()
    assert isinstance(guide.policy, cai.NeuralPolicy)


def test_policies_can_be_saved_where_their_model_cannot():
    model = dataclasses.replace(models.ledge(), reward=lambda s, a: -s.double())
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(model)
    for make in (cai.TabularPolicy, cai.NeuralPolicy, cai.RecurrentPolicy, cai.Plan):
        policy = make(model)
        paths, again = (
            inference.importance(model, x, 20, seed=1) for x in (policy, pickled(policy))
        )
        assert torch.equal(paths.log_weights, again.log_weights)
    fitted = inference.fit(model, cai.NeuralPolicy(model), steps=2, progress=False)
    assert pickled(fitted).elbo == fitted.elbo
    assert pickled(inference.factorised_plan(model)).elbo == inference.factorised_plan(model).elbo


def test_every_public_class_is_among_these():
    public = {
        name
        for module in (cai, inference)
        for name in module.__all__
        if inspect.isclass(getattr(module, name))
    }
    parts = {"TrajectoryModel", "LinearGaussian", "EmpiricalStates", "FlatPrior"}  # of MODELS
    assert public <= set(RESULTS) | set(POLICIES) | parts
    gymnasiums = {"ModelEnv", "ModelVectorEnv", "as_environment", "published", "register"}
    made = {name.split(",")[0].split(" ")[0] for name in MODELS} | {"environment", "Environment"}
    networks = {"city", "streets", "streets_from_columns", "streets_from_tntp"}  # Streets
    assert made >= set(models.__all__) - gymnasiums - networks


def test_an_environment_can_be_pickled():
    cart = models.environment("CartPole-v1", num_envs=2)
    returns = [x.simulate(cai.NeuralPolicy(x), 3, seed=0).returns for x in (cart, pickled(cart))]
    assert torch.equal(*returns)


def solved(model):
    """In another process."""
    return inference.posterior(model)


def trained(model, policy):
    """In another process."""
    return inference.fit(model, policy, estimator="score", steps=2, progress=False)


def stops(policy):
    """In another process."""
    raise inference.FitStopped("in vain", 3, "a_1", policy, torch.zeros(3))


def test_a_pool_of_processes_gives_the_same_answers():
    model, policy = models.ledge(), cai.NeuralPolicy(models.ledge(), hidden=(3,))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        found, fitted = pool.submit(solved, model), pool.submit(trained, model, policy)
        failed = pool.submit(stops, policy)
        assert found.result().bound == inference.posterior(model).bound
        assert torch.equal(fitted.result().losses, trained(model, policy).losses)
        with pytest.raises(inference.FitStopped, match="in vain") as caught:
            failed.result()
    assert (caught.value.step, caught.value.site) == (3, "a_1")

"""Goals: values in place of products, road networks, what is out, vectors, and wrong inputs."""

import dataclasses
import re

import pyro.distributions as dist
import pytest
import torch
from towns import NAMES, simulated, town, trips_of

import cai
from cai import inference, models

WEIGHTS = torch.tensor([-1.5, -0.5, -1.0], dtype=torch.float64)
HALL = ["S...", ".#..", "...."]  # cells 0 to 10


def to_goals(goals, horizon=None, **options):
    floor = cai.tabulate(models.gridworld(HALL, horizon=horizon, **options))
    return {f"cell {g}": cai.with_goal(floor, g) for g in goals}


def wandering(n, seed):
    """Beginnings of walks of six random steps, which go on."""
    model = models.gridworld(HALL, horizon=6, slip=0.3)
    seen = model.simulate(lambda t, s: model.prior(s, t), n, seed=seed)
    return cai.Demonstrations.from_trajectories(seen).with_ends("cut")


@pytest.mark.parametrize("horizon", [None, 9])
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_at_optimism_one_who_is_nearer_than_at_the_start_is_going_there(horizon, discount):
    """∝ p(g) exp((V_g(s_t) - V_g(s_0))/α), on a floor that slips."""
    goals = to_goals([3, 7, 10], horizon, slip=0.3, discount=discount)
    seen = wandering(60, seed=1)
    on_the_way = ~torch.isin(seen.states[:, :-1], torch.tensor([3, 7, 10])).any(1)
    seen = seen[on_the_way]  # a step out of a goal pays something else
    assert torch.isin(seen.states[:, -1], torch.tensor([3, 7, 10])).any()
    prior = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    belief = inference.intent(goals, seen, prior, optimism=1.0)
    v = [inference.soft_values(table, 1.0).log_values for table in goals.values()]
    at = (seen.states,) if horizon is None else (torch.arange(7), seen.states)
    here = torch.stack([x[at] for x in v], -1)
    expected = (here - here[:, :1] + prior.log()).softmax(-1)
    torch.testing.assert_close(belief.probability, expected, rtol=1e-9, atol=1e-12)


def test_a_goal_that_was_passed_or_cannot_be_reached_is_out_at_any_optimism():
    goals = to_goals([1, 3], slip=0.0)
    past = cai.Demonstrations.from_paths([[0, 1, 2]], [[1, 1]])
    for eta in (-1.0, 0.0, 0.5, 1.0, torch.inf):
        for likelihood in ("paths", "actions"):
            belief = inference.intent(goals, past, optimism=eta, likelihood=likelihood)
            assert belief.probability[0, :, 0].tolist()[2] == 0
            assert 0 < belief.probability[0, 1, 0] < 1
    # From x one street leads to the goal and one to a dead end, from which nothing leads on.
    tails, heads = ["x", "x", "y"], ["y", "z", "g"]
    net = models.road_network(tails, heads, -1.0, goals="g")
    other = models.road_network(["x", "x", "y"], ["y", "z", "g"], -1.0, goals="z")
    lost = net.layout.states.index("z")
    assert other.layout.states[lost] == "z"
    y = net.layout.states.index("y")
    only = cai.Demonstrations.from_paths([[y, net.layout.states.index("g")]], [[0]])
    for eta in (-1.0, 0.0, 1.0):
        belief = inference.intent({"g": net, "z": other}, only, optimism=eta)
        assert belief.probability[0].tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_a_risk_that_cannot_be_avoided_is_not_a_wish_that_cannot_be_had():
    """At optimism 0 a value of -inf is a risk; whoever runs it acts by the prior."""
    P = [[[0.0, 0.5, 0.5]] * 2, [[0.0, 1.0, 0.0]] * 2, [[0.0, 0.0, 1.0]] * 2]
    paid = [[0.0, 0.0], [0.0, 0.0], [-torch.inf, -torch.inf]]
    risky = models.tabular(P, paid, horizon=3, action_prior=[0.25, 0.75])
    assert inference.soft_values(risky).V[0, 0] == -torch.inf
    safe = models.tabular(P, torch.zeros(3, 2), horizon=3, action_prior=[0.25, 0.75])
    path = cai.Demonstrations.from_paths([[0, 1]], [[1]])
    belief = inference.intent({"risky": risky, "safe": safe}, path)
    assert belief.final[0].tolist() == pytest.approx([0.5, 0.5])
    assert float(belief.log_evidence[0, 1].exp()) == pytest.approx(0.75 * 0.5)
    hopes = inference.intent({"risky": risky, "safe": safe}, path, optimism=1.0)
    assert hopes.final[0].tolist() == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_goals_on_roads_are_those_of_the_network_as_a_model(eta):
    streets = town(1)
    trips = trips_of(streets, simulated(streets, WEIGHTS, 25, seed=4))
    goals = sorted(set(trips.goals.tolist()))[:6]
    routes = inference.Routes(streets, tuple(NAMES), WEIGHTS, torch.tensor(goals))
    keep = [i for i in range(len(trips)) if int(trips.goals[i]) in goals]
    seen = trips[keep]
    prior = {g: 1.0 + k for k, g in enumerate(goals)}
    belief = inference.intent(routes, seen, prior)
    assert belief.names == tuple(goals)
    for i, share in ((i, share) for i in range(len(seen)) for share in (0.3, 0.6, 1.0)):
        prefix = seen[i].prefix(share)
        L = int(prefix.lengths[0])
        torch.testing.assert_close(
            belief.probability[i, L], routes.goal_posterior(prefix, prior), rtol=1e-9, atol=1e-12
        )
    # States are segments, and the actions of one are its turns, in order.
    E, (tails, heads) = len(streets.segments), streets.turns.T.tolist()
    utility = streets.features(NAMES) @ WEIGHTS
    as_models = {
        g: models.road_network(tails, heads, utility, goals=g, num_states=E, recursive_logit=True)
        for g in goals
    }
    first = streets.offsets[seen.states[:, :-1]]
    actions = torch.where(seen.taken, seen.actions - first, 0)
    as_steps = dataclasses.replace(seen, actions=actions, goals=None)
    found = inference.intent(as_models, as_steps, prior, optimism=eta)
    torch.testing.assert_close(found.probability, belief.probability, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(found.log_evidence, belief.log_evidence, rtol=1e-8, atol=1e-8)
    assert belief.final[torch.arange(len(seen)), [goals.index(g) for g in seen.goals]].min() > 0


def regulator(target, noise=0.1, horizon=6, **options):
    """Who drives a point to a target in the end, whatever the way."""
    prior = dist.MultivariateNormal(torch.zeros(1), torch.eye(1))
    return models.linear_gaussian(
        [[1.0, 0.5], [0.0, 0.9]],
        [[0.0], [1.0]],
        horizon=horizon,
        noise=[[noise, 0.0], [0.0, noise]],
        Q_final=[[2.0, 0.0], [0.0, 2.0]],
        q_final=[2 * target, 0.0],
        R=[[0.5]],
        initial_covariance=torch.eye(2),
        action_prior=prior,
        **options,
    )


def test_vectors_by_the_values_of_linear_gaussian_models():
    targets = {"left": -2.0, "middle": 0.0, "right": 2.0}
    people = {name: regulator(x) for name, x in targets.items()}
    seen = people["right"].simulate(inference.soft_values(people["right"]).policy, 30, seed=0)
    hoping = inference.intent(people, seen, [0.2, 0.5, 0.3], optimism=1.0)
    values = [inference.soft_values(model, 1.0).V for model in people.values()]
    t = torch.arange(7)
    v = torch.stack([V(t, seen.states.double()) for V in values], -1)
    prior = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    torch.testing.assert_close(hoping.probability, (v - v[:, :1] + prior.log()).softmax(-1))
    # At optimism 0 the noise is the same for all, and only actions count.
    causal = inference.intent(people, seen, [0.2, 0.5, 0.3])
    log_pi = torch.stack(
        [
            torch.distributions.Normal(
                (policy.offsets - (policy.gains @ seen.states[:, :-1].double()[..., None])[..., 0]),
                policy.covariance[..., 0].sqrt(),
            )
            .log_prob(seen.actions)
            .sum(-1)
            for policy in (inference.soft_values(model).policy for model in people.values())
        ],
        -1,
    )
    summed = (log_pi.cumsum(1) + prior.log()).softmax(-1)
    torch.testing.assert_close(causal.probability[:, 1:], summed)
    policies = {name: inference.soft_values(model).policy for name, model in people.items()}
    acted = inference.intent(policies, seen, [0.2, 0.5, 0.3], likelihood="actions")
    torch.testing.assert_close(acted.probability, causal.probability)
    solved = {name: inference.soft_values(model, 1.0) for name, model in people.items()}
    again = inference.intent(solved, seen, [0.2, 0.5, 0.3])
    torch.testing.assert_close(again.log_likelihoods, hoping.log_likelihoods)
    assert (causal.pooled.argmax(), causal.pooled.max() > 0.999) == (2, True)


def test_without_noise_all_optimisms_agree_on_vectors():
    people = {name: regulator(x, noise=0.0) for name, x in (("left", -2.0), ("right", 2.0))}
    seen = people["right"].simulate(inference.soft_values(people["right"]).policy, 5, seed=0)
    found = [inference.intent(people, seen, optimism=eta) for eta in (0.0, 1.0)]
    torch.testing.assert_close(found[0].probability, found[1].probability)
    assert found[0].pooled[1] > 0.9
    assert not found[0].log_evidence.isinf().any()


FLOOR = models.gridworld(HALL, horizon=4, slip=0.0)
STEPS = cai.Demonstrations.from_paths([[0, 1, 2], [0, 1, 2]], [[1, 1], [1, 1]])


@pytest.mark.parametrize(
    ("given", "prefix", "options", "message"),
    [
        (
            {},
            STEPS,
            {},
            "models: expected a mapping from names to at least one model, got an empty",
        ),
        (
            [FLOOR],
            STEPS,
            {},
            "models: expected a mapping from names to at least one model, got list",
        ),
        ({"a": 3}, STEPS, {}, "models['a']: expected a model, its table, a solution, or a policy"),
        ({"a": FLOOR}, [[0, 1]], {}, "prefix: expected cai.Demonstrations or trajectories"),
        ({"a": FLOOR}, STEPS, {"prior": [1, 2]}, "prior: expected shape [1]"),
        ({"a": FLOOR}, STEPS, {"prior": {"b": 1}}, "prior: expected one for each name"),
        ({"a": FLOOR}, STEPS, {"prior": {"a": 1, "b": 1}}, "got one for 'b'; names are ['a']"),
        ({"a": FLOOR}, STEPS, {"optimism": {"b": 1}}, "optimism: expected one for each name"),
        (
            {"a": FLOOR},
            STEPS,
            {"optimism": "high"},
            "optimism of models['a']: expected a real number",
        ),
        ({"a": FLOOR}, STEPS, {"rule": "greedy"}, "rule of models['a']: expected"),
        ({"a": FLOOR}, STEPS, {"likelihood": "all"}, 'likelihood: expected "paths" or "actions"'),
        ({"a": FLOOR.prior}, STEPS, {}, "models['a']: expected a model or a solution"),
        ({"a": models.pendulum(horizon=3)}, STEPS, {}, "models['a']: model: expected finitely"),
        (
            {"a": FLOOR},
            cai.Demonstrations.from_paths([[0, 1, 2], [0, 2, 2]], [[1, 1], [1, 1]]),
            {},
            "prefix 1, step 0: expected a step that some model with a prior above zero still "
            "allows, got action 1 in state 0, then state 2",
        ),
        (
            {"a": FLOOR},
            cai.Demonstrations.from_paths([[0, 44]], [[1]]),
            {},
            "prefix 0, states: expected integers in 0 … 10, those of models['a'], got 44 at step 1",
        ),
        (
            {"a": FLOOR},
            cai.Demonstrations.from_paths([[0] * 6], [[0] * 5]),
            {},
            "prefix 0: expected at most 4 actions, the horizon of models['a'], got 5",
        ),
        (
            {"a": regulator(0.0)},
            STEPS,
            {},
            "prefix: expected states of 2 and actions of 1 numbers, as of models['a']",
        ),
        (
            {"a": FLOOR},
            regulator(0.0).simulate(inference.soft_values(regulator(0.0)).policy, 2, seed=0),
            {},
            "prefix: expected integers, of the states and actions of models['a'], got vectors",
        ),
        (
            {"a": lambda t, s: dist.Categorical(torch.ones(len(s), 1))},
            STEPS,
            {"likelihood": "actions"},
            "prefix: expected actions of models['a']",
        ),
    ],
)
def test_what_does_not_fit_is_refused(given, prefix, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        inference.intent(given, prefix, **options)


def test_more_that_does_not_fit_is_refused():
    belief = inference.intent({"a": FLOOR, "b": FLOOR}, STEPS)
    with pytest.raises(ValueError, match=r"belief\[…\]: expected a number of one of 2"):
        belief[2]
    with pytest.raises(ValueError, match="places: expected numbers of parts of all names"):
        belief.marginal(0)
    goals = to_goals([3, 7])
    apart = cai.Demonstrations.from_paths([[0, 1, 2, 3, 2], [6, 7, 3, 3, 3]], [[1] * 4] * 2)
    with pytest.raises(ValueError, match="prefix 0, step 3: expected a step that some model"):
        inference.intent({"cell 3": goals["cell 3"]}, apart)
    street = models.road_network(["x", "y"], ["y", "g"], -1.0, goals="g", num_states=None)
    stuck = models.road_network(["x", "y", "y"], ["y", "g", "z"], -1.0, goals="g")
    z = stuck.layout.states.index("z")
    still = cai.Demonstrations.from_paths([[z, z]], [[0]])
    with pytest.raises(ValueError, match="prefix 0: expected a start that suits some model"):
        inference.intent({"g": stuck}, still)
    assert len(street.layout.states) == 3
    streets = town(1)
    trips = trips_of(streets, simulated(streets, WEIGHTS, 3, seed=4))
    routes = inference.Routes(streets, tuple(NAMES), WEIGHTS, trips.goals.unique())
    with pytest.raises(ValueError, match="optimism: expected neither optimism nor rule"):
        inference.intent(routes, trips, optimism=1.0)
    with pytest.raises(ValueError, match=r"prior: .* got 'x', too"):
        inference.intent(routes, trips, prior={"x": 1})
    wrong = dataclasses.replace(trips, states=trips.states.flip(1))
    with pytest.raises(ValueError, match="prefix 0: row 0: expected segments that a turn joins"):
        inference.intent(routes, wrong)


def test_a_trajectory_may_start_where_the_model_never_does():
    """The model starts on the left of a wall; its goal and the trajectory are on the right."""
    floor = cai.tabulate(models.gridworld(["S.#...", "..#..."], horizon=None, slip=0.0))
    with pytest.raises(ValueError, match="evidence"):
        inference.soft_values(cai.with_goal(floor, 4))
    goals = {g: cai.with_goal(floor, g) for g in (2, 4)}
    belief = inference.intent(goals, cai.Demonstrations.from_paths([[3, 4]], [[1]]))
    assert belief.names[belief.final[0].argmax()] == 4


class Stubborn:
    """A policy with a memory: it repeats its last action with probability p."""

    def __init__(self, p):
        self.p = p

    def start(self):
        return self.act

    def act(self, t, s, before):
        if before is None:
            return dist.Categorical(torch.ones(len(s), 2, dtype=torch.float64))
        again = torch.tensor([1 - self.p, self.p], dtype=torch.float64)
        return dist.Categorical(torch.where(before.unsqueeze(-1) == 1, again, again.flip(0)))


def test_a_policy_that_remembers_is_scored_with_what_it_did():
    seen = cai.Demonstrations.from_paths([[0] * 4, [0] * 3], [[1, 1, 0], [0, 1]], ends="cut")
    people = {p: Stubborn(p) for p in (0.9, 0.5)}
    belief = inference.intent(people, seen, likelihood="actions")
    chances = [[0.5 * 0.9 * 0.1, 0.5**3], [0.5 * 0.1, 0.5**2]]
    expected = torch.tensor(chances, dtype=torch.float64).log()
    torch.testing.assert_close(belief.log_likelihoods[:, -1], expected)


def test_beliefs_hold_no_graph_of_rewards_that_are_learnt():
    table = cai.tabulate(FLOOR)
    learnt = dataclasses.replace(table, reward=table.reward.clone().requires_grad_())
    belief = inference.intent({"learnt": learnt, "fixed": table}, STEPS, progress=False)
    assert not belief.probability.requires_grad
    assert belief.final[0].tolist() == pytest.approx([0.5, 0.5])
    with pytest.raises(ValueError, match="progress: expected True or False"):
        inference.intent({"fixed": table}, STEPS, progress="no")

"""Beliefs in models against Bayes' rule on the probabilities of whole paths, one by one."""

import dataclasses
import itertools
import math

import numpy as np
import oracles
import pytest
import torch

import cai
from cai import inference

T = 3


def shared(seed, discount=1.0, by_step=False, T=T):
    """Three problems with the same dynamics, prior and start: rewards and temperatures differ."""
    make = oracles.random_steps if by_step else oracles.random_problem
    first = make(seed, T=T, discount=discount)
    found = {"first": first}
    for k, name in enumerate(("second", "third"), 1):
        other = make(seed + 100 * k, T=T, discount=discount)
        rewards = {x: getattr(other, x) for x in ("reward", "arrival", "final")}
        found[name] = dataclasses.replace(first, temperature=0.4 + 0.5 * k, **rewards)
    return found


def strangers(seed, discount=1.0, by_step=False, T=T):
    """Three problems that have nothing in common, not even what is possible."""
    make = oracles.random_steps if by_step else oracles.random_problem
    return {f"{k}": make(seed + k, T=T, discount=discount) for k in range(3)}


def by_hand(problem, eta):
    """π [t][s][a], and q(s', alive) and q(s', terminated) [t][s][a][s'], by Bellman's recursion."""
    alpha, gamma, V = problem.temperature, problem.discount, np.asarray(problem.final)
    policy, on, off = [], [], []
    for t in reversed(range(problem.T)):
        now = problem.at(t)
        lives = now.P * gamma * np.exp(eta * (now.arrival + V) / alpha)
        dies = now.P * (1 - gamma) * np.exp(eta * now.arrival / alpha)
        total = (lives + dies).sum(-1)
        if eta == 0:
            Q = now.reward + (now.P * (now.arrival + gamma * V)).sum(-1)
        else:
            Q = now.reward + alpha / eta * np.log(total)
        weight = now.prior * np.exp(Q / alpha)
        V = alpha * np.log(weight.sum(-1))
        policy.insert(0, weight / weight.sum(-1, keepdims=True))
        on.insert(0, lives / total[..., None])
        off.insert(0, dies / total[..., None])
    return policy, (on, off)


def beginnings(problem, eta):
    """(states, actions, survived) of each beginning -> its probability given s_0, over all paths.

    At η = 1 without the recursion: by the weight p(τ) exp(Σ r/α) of every path.
    """
    S, _ = problem.sizes
    anywhere = [1.0 / S] * S
    if eta == 1:
        every = [(path, oracles.mass(problem, path)) for path in oracles.paths(problem, anywhere)]
    else:
        policy, dynamics = by_hand(problem, eta)
        every = [(x, x.probability) for x in oracles.paths(problem, anywhere, policy, dynamics)]
    total, found = dict.fromkeys(range(S), 0.0), {}
    for path, weight in every:
        total[path.states[0]] += weight
        for k in range(1, len(path.actions) + 1):
            lives = path.survived or k < len(path.actions)
            seen = path.states[: k + 1], path.actions[:k], lives
            found[seen] = found.get(seen, 0.0) + weight
    return {seen: weight / total[seen[0][0]] for seen, weight in found.items()}


def as_prefixes(seen):
    ends = ["cut" if lives else "terminated" for _, _, lives in seen]
    return cai.Demonstrations.from_paths([s for s, _, _ in seen], [a for _, a, _ in seen], ends)


CASES = [
    *itertools.product((shared,), (1.0,), (False,), (0.0, 1.0, -0.4)),
    *itertools.product((shared, strangers), (0.8,), (False, True), (0.0, 0.6, 1.0)),
]


@pytest.mark.parametrize(("make", "discount", "by_step", "eta"), CASES)
def test_bayes_on_the_probability_of_every_beginning(make, discount, by_step, eta):
    problems = make(7, discount, by_step, T=T if discount == 1 else 2)
    by_model = {name: beginnings(problem, eta) for name, problem in problems.items()}
    seen = sorted({beginning for found in by_model.values() for beginning in found})
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    models = {name: problem.model() for name, problem in problems.items()}
    belief = inference.intent(models, as_prefixes(seen), 4 * weights, optimism=eta)
    assert belief.names == tuple(problems)
    torch.testing.assert_close(belief.prior, weights)
    p = [[found.get(now, 0.0) for found in by_model.values()] for now in seen]
    joint = weights * torch.tensor(p, dtype=torch.float64)
    torch.testing.assert_close(belief.log_evidence[:, -1], joint.sum(1).log())
    torch.testing.assert_close(belief.final, joint / joint.sum(1, keepdim=True))
    assert belief.lengths.tolist() == [len(actions) for _, actions, _ in seen]
    # Each beginning of a beginning is one, too.
    place = {now: i for i, now in enumerate(seen)}
    assert (belief.probability[:, 0] - weights).abs().max() < 1e-12
    for i, (states, actions, _) in enumerate(seen):
        for k in range(1, len(actions)):
            shorter = place[states[: k + 1], actions[:k], True]
            assert torch.equal(belief.log_likelihoods[i, k], belief.log_likelihoods[shorter, k])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_beliefs_are_right_on_average(eta):
    """Over what follows from one state, evidence sums to one, and beliefs average to the prior."""
    problems = shared(3, 0.9)
    models = {name: problem.model() for name, problem in problems.items()}
    every = [sorted(beginnings(problem, eta)) for problem in problems.values()]
    whole = {x for found in every for x in found if x[0][0] == 0}
    whole = sorted(x for x in whole if len(x[1]) == 2 or not x[2])
    whole = [x for x in whole if len(x[1]) <= 2]
    belief = inference.intent(models, as_prefixes(whole), [0.2, 0.5, 0.3], optimism=eta)
    evidence = belief.log_evidence[:, -1].exp()
    assert float(evidence.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(evidence @ belief.final, belief.prior)


def test_at_optimism_zero_it_is_the_product_of_the_choices():
    problems = shared(5)
    models = {name: problem.model() for name, problem in problems.items()}
    seen = as_prefixes(sorted(beginnings(problems["first"], 0.0)))
    policies = {name: inference.soft_values(model).policy for name, model in models.items()}
    choices = torch.stack(
        [
            torch.where(seen.taken, policy.log_probs[torch.arange(T), s, seen.actions], 0.0).sum(1)
            for policy in policies.values()
            for s in [seen.states[:, :-1]]
        ],
        1,
    )
    expected = (choices + torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64).log()).softmax(1)
    for given, likelihood in ((models, "paths"), (models, "actions"), (policies, "actions")):
        belief = inference.intent(given, seen, [0.1, 0.6, 0.3], likelihood=likelihood)
        torch.testing.assert_close(belief.final, expected)
    assert belief.likelihood == "actions"
    torch.testing.assert_close(belief.log_likelihoods[:, -1], choices)


@pytest.mark.parametrize("eta", [-0.5, 0.0, 1.0, math.inf])
@pytest.mark.parametrize("rule", ["soft", "hard", "boltzmann", "planned"])
def test_models_and_their_solutions_are_believed_alike(eta, rule):
    problems = shared(2)
    models = {name: problem.model() for name, problem in problems.items()}
    seen = as_prefixes(sorted(beginnings(problems["first"], 0.0)))
    whole = {"first": models["first"], "second": models["second"]}
    etas, rules = {"first": 0.3, "second": eta}, {"first": "soft", "second": rule}
    solved = {name: inference.soft_values(whole[name], etas[name], rules[name]) for name in whole}
    # What is forbidden by a hard rule may be impossible under that model alone.
    for likelihood in ("paths", "actions"):
        one = inference.intent(whole, seen, optimism=etas, rule=rules, likelihood=likelihood)
        other = inference.intent(solved, seen, likelihood=likelihood)
        torch.testing.assert_close(one.log_likelihoods, other.log_likelihoods, rtol=1e-9, atol=0)
        policy = solved["second"].policy.log_probs[0][seen.states[:, 0], seen.actions[:, 0]]
        if likelihood == "actions":
            torch.testing.assert_close(one.log_likelihoods[:, 1, 1], policy, rtol=1e-9, atol=0)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_a_belief_goes_on_from_where_it_was(eta):
    """Half by half, with the belief in between as prior, is all at once."""
    models = {
        name: dataclasses.replace(
            problem, final=np.zeros(3), reward=problem.reward - 2, discount=0.7
        ).model(horizon=None, final_reward=None)
        for name, problem in shared(4).items()
    }
    finite = dataclasses.replace(models["first"], horizon=12, discount=1.0)
    walk = finite.simulate(lambda t, s: finite.prior(s, t), 1, seed=3)
    states, actions = walk.states[0].tolist(), walk.actions[0].tolist()

    def believed(part, prior=None):
        path = cai.Demonstrations.from_paths([states[part.start : part.stop + 1]], [actions[part]])
        return inference.intent(models, path, prior, optimism=eta)

    whole = believed(slice(0, 12))
    first = believed(slice(0, 5))
    torch.testing.assert_close(first.probability[0], whole.probability[0, :6])
    rest = believed(slice(5, 12), first.final[0])
    torch.testing.assert_close(rest.probability[0], whole.probability[0, 5:])
    total = first.log_evidence[0, -1] + rest.log_evidence[0, -1]
    torch.testing.assert_close(total, whole.log_evidence[0, -1])
    one_by_one = None
    for t in range(12):
        one_by_one = believed(slice(t, t + 1), one_by_one).final[0]
    torch.testing.assert_close(one_by_one, whole.final[0])


def test_the_order_of_models_and_of_trajectories_does_not_matter():
    problems = strangers(11)
    models = {name: problem.model() for name, problem in problems.items()}
    seen = as_prefixes(sorted(beginnings(problems["0"], 0.0)))
    prior, eta = {"0": 1.0, "1": 2.0, "2": 3.0}, {"0": 0.0, "1": 0.5, "2": 1.0}
    straight = inference.intent(models, seen, prior, optimism=eta)
    backwards = {name: models[name] for name in reversed(models)}
    turned = inference.intent(backwards, seen, prior, optimism=eta)
    assert turned.names == ("2", "1", "0")
    torch.testing.assert_close(turned.probability.flip(-1), straight.probability)
    torch.testing.assert_close(turned.log_evidence, straight.log_evidence)
    other = torch.arange(len(seen)).flip(0)
    again = inference.intent(models, seen[other.tolist()], prior, optimism=eta)
    torch.testing.assert_close(again.final.flip(0), straight.final)
    torch.testing.assert_close(again.pooled, straight.pooled)
    assert torch.equal(straight[3].final, straight.final[3:4])


def test_names_of_several_parts_are_summed_out():
    problems = shared(6)
    models = {
        (name, eta): inference.soft_values(problem.model(), eta)
        for name, problem in problems.items()
        for eta in (0.0, 1.0)
    }
    seen = as_prefixes(sorted(beginnings(problems["first"], 0.0)))
    prior = torch.tensor([1, 2, 3, 4, 5, 6.0], dtype=torch.float64)
    belief = inference.intent(models, seen, prior)
    goals, etas = belief.marginal(0), belief.marginal(1)
    assert (goals.names, etas.names) == (tuple(problems), (0.0, 1.0))
    by_goal = belief.probability.unflatten(-1, (3, 2)).sum(-1)
    torch.testing.assert_close(goals.probability, by_goal)
    torch.testing.assert_close(etas.probability, belief.probability.unflatten(-1, (3, 2)).sum(-2))
    torch.testing.assert_close(goals.log_evidence, belief.log_evidence)
    both = belief.marginal(1, 0)
    assert both.names[1] == (1.0, "first")
    torch.testing.assert_close(both.probability, belief.probability)
    some = inference.intent(models, seen, [0, 0, 1, 1, 1, 1]).marginal(0)
    assert (some.probability[..., 0] == 0).all()
    assert not some.log_likelihoods.isnan().any()


def test_all_by_one_is_bayes_on_all_of_them():
    problems = shared(8)
    models = {name: problem.model() for name, problem in problems.items()}
    seen = as_prefixes(sorted(beginnings(problems["second"], 0.0))[:9])
    belief = inference.intent(models, seen, [0.5, 0.2, 0.3])
    prior = belief.prior
    for i in range(len(seen)):
        prior = inference.intent(models, seen[i], prior).final[0]
    torch.testing.assert_close(belief.pooled, prior)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_whole_trajectory_has_its_own_horizon(eta):
    problems = shared(9, T=4)
    long = {name: problem.model() for name, problem in problems.items()}
    short = {name: dataclasses.replace(problem, T=2).model() for name, problem in problems.items()}
    seen = beginnings(dataclasses.replace(problems["first"], T=2), 0.0)
    seen = as_prefixes(sorted(x for x in seen if len(x[1]) == 2))
    own = inference.intent(long, seen.with_ends("own"), optimism=eta)
    expected = inference.intent(short, seen, optimism=eta)
    torch.testing.assert_close(own.log_likelihoods, expected.log_likelihoods)
    other = inference.intent(long, seen, optimism=eta)
    assert (own.final - other.final).abs().max() > 1e-3

"""Rewards from rollouts: weights by brute force, and the exact fits that they converge to."""

import itertools
import json
import math

import oracles
import pytest
import torch
from demonstrated import every_path, features_of

import cai
from cai import inference, models
from cai.inference.apprenticeship._sampled_rounds import ByMatching
from cai.inference.apprenticeship._weighted_rollouts import (
    WeightedRollouts,
    totals_of,
    totals_seen,
)
from cai.inference.apprenticeship._weighted_rounds import ByWeights
from cai.inference.inverse.observed import observed
from cai.policies.as_table import policy_log_probs
from cai.tables.rollouts import Rollouts, roll_out

TRUE = [0.5, -1.0, 0.7]


def case(seed, discount=1.0, n=400, S=4, A=3, T=5):
    """A model with stochastic dynamics, and demonstrations of its best policy under a reward."""
    problem = oracles.random_problem(seed, S=S, A=A, T=T, discount=discount, zeros=0, forbidden=0)
    model, reward = problem.model(), features_of(seed, S, A)
    expert = inference.soft_values(reward.weighted(TRUE).given_to(model)).policy
    seen = cai.Demonstrations.from_trajectories(model.simulate(expert, n, seed=1))
    return model, seen, reward


def weights_of(result):
    return torch.tensor(list(result.weights.values()), dtype=torch.float64)


def away(found, exact):
    """(k,), how far weights are from others, in sampling errors."""
    return (weights_of(found) - weights_of(exact)) / found.sampling_errors


def sampled(case, **options):
    return inference.sampled_reward(*case, progress=False, **options)


EXACT = {
    True: {"likelihood": "paths", "optimism": 1.0},
    False: {"likelihood": "matching"},
}
ENOUGH = {True: {"samples": 1000}, False: {"samples": 400, "rounds": 100}}


@pytest.mark.parametrize("weighted", [True, False])
def test_it_converges_to_its_exact_fit_within_its_sampling_error(weighted):
    """Two problems by two seeds, one of them terminated by its discount; 12 numbers of each."""
    found = []
    for problem in (case(1, T=4), case(2, T=4, discount=0.85)):
        exact = inference.fit_reward(*problem, **EXACT[weighted])
        for seed in range(2):
            result = sampled(problem, weighted=weighted, seed=seed, **ENOUGH[weighted])
            assert result.converged
            assert (result.sampling_errors < 0.08).all()  # which the truth is large beside
            found.append(away(result, exact))
    z = torch.stack(found)
    assert z.abs().max() < 4.5
    assert 0.1 < z.square().mean() < 3  # the errors are neither too small nor too large


def test_with_weights_luck_is_taken_for_choice_and_without_it_is_not():
    """Two tickets that cost 1 and win 2, with chance .1 and .5, and a third choice of neither."""
    P = torch.zeros(3, 3, 3)
    P[0, :, 1:] = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]])
    P[1:, :, 1] = 1.0
    shop = models.tabular(P, torch.zeros(3, 3), horizon=1, initial=[1.0, 0.0, 0.0])
    reward = cai.LinearReward(
        {"ticket": lambda s, a: (s == 0) & (a < 2)}, arrival={"win": lambda s, a, n: n == 2}
    )
    expert = inference.soft_values(reward.weighted([-1.0, 2.0]).given_to(shop)).policy
    seen = cai.Demonstrations.from_trajectories(shop.simulate(expert, 20_000, seed=0))
    optimistic = sampled((shop, seen, reward), samples=4000)
    causal = sampled((shop, seen, reward), samples=1000, weighted=False)
    # Of infinitely many demonstrations: (-.437, .341) and (-1, 2).
    assert list(optimistic.weights.values()) == pytest.approx([-0.437, 0.341], abs=0.12)
    assert list(causal.weights.values()) == pytest.approx([-1.0, 2.0], abs=0.3)
    for result, likelihood in ((optimistic, True), (causal, False)):
        exact = inference.fit_reward(shop, seen, reward, **EXACT[likelihood])
        assert away(result, exact).abs().max() < 4.5
        other = inference.fit_reward(shop, seen, reward, **EXACT[not likelihood])
        assert away(result, other).abs().max() > 20


def proposals_of(table, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (table.steps, table.num_states, table.num_actions)
    return torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(-1)


def all_rollouts(table):
    """Every path, from every first state."""
    seen = every_path(table, table.steps)
    outcomes = seen.states[:, 1:]
    alive = torch.ones_like(seen.states, dtype=torch.bool)
    return Rollouts(seen.states, seen.actions, outcomes, alive)


def test_weights_over_the_mixture_add_up_to_the_partition_function():
    """All paths one by one, so that nothing is left to chance."""
    model = oracles.random_problem(3, S=3, A=2, T=3, zeros=0, forbidden=0).model()
    table, reward = cai.tabulate(model), features_of(3, 3, 2)
    features, psi = reward.on(table), torch.tensor(TRUE, dtype=torch.float64)
    taken = all_rollouts(table)
    log_q = [proposals_of(table, seed) for seed in (0, 1)]
    sample = WeightedRollouts(
        share=torch.full((3,), 1 / 3, dtype=torch.float64),
        start=taken.states[:, 0],
        totals=totals_of(table, features, taken),
        log_prior=taken.log_probs(table.log_prior),
        log_proposals=torch.stack([taken.log_probs(q) for q in log_q], 1),
        counts=torch.tensor([[1.0, 3.0]] * 3, dtype=torch.float64),
        alpha=float(table.temperature),
    )
    s, a, after = taken.states[:, :-1], taken.actions, taken.states[:, 1:]
    dynamics = table.dense(table.log_dynamics)[s, a, after].prod(1)
    mixture = sample.log_proposals.exp() @ torch.tensor([0.25, 0.75], dtype=torch.float64)
    mean = torch.zeros(3, dtype=torch.float64).index_add_(
        0, sample.start, dynamics * mixture * sample.log_weights(psi).exp()
    )
    paid = features.rewards(table, psi)
    expected = inference.soft_values(paid, 1.0).V[0] / paid.temperature
    torch.testing.assert_close(mean.log(), expected, rtol=0, atol=1e-12)


def test_the_gradient_and_the_curvature_are_those_of_the_estimated_objective():
    model, seen, reward = case(4, n=50)
    table = cai.tabulate(model)
    features = reward.on(table)
    found, _ = observed(table, seen, "error")
    log_q = proposals_of(table, 0)
    torch.manual_seed(0)
    starts = found.starts.unique()
    start = torch.arange(len(starts)).repeat(50)
    taken = roll_out(table, log_q, starts[start])
    share = torch.full((len(starts),), 1 / len(starts), dtype=torch.float64)
    totals = totals_of(table, features, taken)
    log_prior, log_proposals = taken.log_probs(table.log_prior), taken.log_probs(log_q)[:, None]
    counts = torch.full((len(starts), 1), 50.0, dtype=torch.float64)
    alpha = float(table.temperature)
    sample = WeightedRollouts(share, start, totals, log_prior, log_proposals, counts, alpha)
    demonstrated = totals_seen(table, features, found)

    def objective(psi):
        value = (demonstrated.features @ psi + demonstrated.known).mean() / alpha
        w = log_prior - log_proposals[:, 0] + (totals.features @ psi + totals.known) / alpha
        each = [w[start == i].logsumexp(0) - math.log(50) for i in range(len(starts))]
        return value - share @ torch.stack(each)

    psi = torch.tensor(TRUE, dtype=torch.float64, requires_grad=True)
    at = sample.estimate(psi.detach(), demonstrated)
    assert at.value == pytest.approx(objective(psi).item(), abs=1e-12)
    (slope,) = torch.autograd.grad(objective(psi), psi)
    torch.testing.assert_close(at.gradient, slope, rtol=0, atol=1e-12)
    bend = torch.autograd.functional.hessian(objective, psi.detach())
    torch.testing.assert_close(at.information, -bend, rtol=0, atol=1e-10)


def test_rollouts_have_the_frequencies_of_their_policy_and_of_the_dynamics():
    model = oracles.random_problem(5, S=3, A=2, T=3, discount=0.8).model()
    table = cai.tabulate(model)
    policy = inference.soft_values(model).policy
    torch.manual_seed(0)
    n = 40_000
    starts = table.log_initial.exp().multinomial(n, replacement=True)
    taken = roll_out(table, policy_log_probs(policy, table), starts)
    visits = inference.soft_values(model).state_actions
    for t in range(3):
        alive = taken.alive[:, t]
        pairs = taken.states[alive, t] * 2 + taken.actions[alive, t]
        share = pairs.bincount(minlength=6).view(3, 2) / n
        torch.testing.assert_close(share.double(), visits[t], rtol=0, atol=5 * 0.5 / n**0.5)


def test_demonstrations_join_with_their_own_density_alone():
    model, seen, reward = problem = case(6, n=1000)
    exact = inference.fit_reward(*problem, **EXACT[True])
    expert = inference.soft_values(reward.weighted(TRUE).given_to(model)).policy
    options = {"samples": 100, "rounds": 3}
    joined = sampled(problem, demonstrator=expert, **options)
    assert joined.rollouts >= len(seen) + 3 * 100
    assert away(joined, exact).abs().max() < 4.5
    # As if they had been drawn from the action prior, with the weight of its rollouts:
    wrong = sampled(problem, demonstrator=lambda t, s: model.prior(s), **options)
    assert away(wrong, exact).abs().max() > 2 * away(joined, exact).abs().max()
    assert away(wrong, exact).abs().max() > 6


def test_the_best_proposals_attain_the_ceiling_and_none_exceed_it():
    model = models.gridworld(["S..", ".P.", "..G"], horizon=6, slip=0.2)
    pit = torch.tensor([c == "P" for row in model.layout.map for c in row])
    reward = cai.LinearReward({"step": lambda s, a: s < 8, "pit": lambda s, a: pit[s]})
    expert = inference.soft_values(reward.weighted([-1.0, -2.0]).given_to(model)).policy
    seen = cai.Demonstrations.from_trajectories(model.simulate(expert, 300, seed=0))
    found = sampled((model, seen, reward), samples=4000)
    assert found.ceiling == pytest.approx(inference.effective_sample_ceiling(found.model))
    assert found.effective_fraction < 1.05 * found.ceiling
    best = inference.soft_values(found.model, optimism=2.0).policy
    other = sampled((model, seen, reward), samples=20_000, rounds=1, proposals=[best])
    assert other.effective_fraction == pytest.approx(other.ceiling, rel=0.05)
    assert other.effective_fraction > 1.02 * found.effective_fraction


def test_the_effective_fraction_is_that_of_importance_sampling():
    model, seen, reward = case(7, T=2)
    first = int(seen.states[0, 0])
    seen = seen[seen.states[:, 0] == first]
    table = cai.tabulate(model)
    found = sampled(
        (model, seen, reward), samples=20_000, rounds=1, proposals=[lambda t, s: model.prior(s)]
    )
    paid = reward.weighted(weights_of(found)).on(table).rewards(table, weights_of(found))
    one = inference.soft_values(paid, 1.0).V[0, first] / paid.temperature
    double = paid.holding(reward=2 * paid.reward, arrival_reward=2 * paid.arrival_reward)
    double = double.holding(final_reward=2 * paid.final_reward)
    two = inference.soft_values(double, 1.0).V[0, first] / paid.temperature  # E w² under the prior
    assert found.effective_fraction == pytest.approx(float((2 * one - two).exp()), rel=0.15)


def raise_interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("weighted", [True, False])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(weighted, tmp_path, monkeypatch):
    problem = case(8, n=50)
    options = {"weighted": weighted, "samples": 100, "rounds": 6}
    whole = sampled(problem, **options)
    kind = ByWeights if weighted else ByMatching
    step, calls = kind.step, itertools.count()

    def interrupted(self):
        if next(calls) == 3:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(kind, "step", interrupted)
    part = sampled(problem, checkpoint=tmp_path / "rounds.pt", **options)
    assert part.steps == 3
    assert not part.converged
    assert "interrupted" in part.reason
    with monkeypatch.context() as patched:
        patched.setattr(kind, "step", lambda self: raise_interrupt())
        nothing = sampled(problem, **options)
    assert nothing.steps == 0
    assert weights_of(nothing).abs().max() == 0
    assert "interrupted" in str(nothing)
    rest = sampled(problem, checkpoint=tmp_path / "rounds.pt", **options)
    assert rest.steps == 6
    assert weights_of(rest).tolist() == weights_of(whole).tolist()
    assert rest.history.tolist() == whole.history.tolist()
    assert rest.sampling_errors.tolist() == whole.sampling_errors.tolist()
    with pytest.raises(ValueError, match="samples"):
        sampled(problem, checkpoint=tmp_path / "rounds.pt", **options | {"samples": 101})


def test_what_rollouts_never_do_is_said():
    """The demonstrator always turns left; rollouts of eight steps hardly ever do."""
    still = models.tabular(torch.ones(1, 4, 1), torch.zeros(1, 4), horizon=8)
    seen = cai.Demonstrations.from_paths([[0] * 9] * 5, [[0] * 8] * 5)
    left = cai.LinearReward({"left": lambda s, a: a == 0})
    found = sampled((still, seen, left), samples=50, rounds=2)
    assert not found.converged
    assert "do not surround" in str(found)


def test_what_has_no_finite_maximum_is_said():
    """One demonstration, the only one to collect so little: no weight is low enough for it."""
    lottery = models.tabular(torch.ones(1, 3, 1), torch.zeros(1, 3), horizon=4)
    few = cai.LinearReward({"wins": lambda s, a: a})
    never = cai.Demonstrations.from_paths([[0] * 5], [[0] * 4])
    always = cai.Demonstrations.from_paths([[0] * 5], [[2] * 4])
    some = cai.Demonstrations.from_paths([[0] * 5], [[0, 1, 2, 0]])
    least, most, between = (
        sampled((lottery, seen, few), samples=2000, rounds=2) for seen in (never, always, some)
    )
    words = "of wins than the demonstrations have: its weight may have no finite maximum."
    assert f"No rollout has less {words}" in least.remarks
    assert f"No rollout has more {words}" in most.remarks
    assert not any("finite maximum" in x for x in between.remarks)


def test_a_weight_that_rollouts_leave_open_has_no_error():
    model, seen, reward = case(9)
    more = cai.LinearReward({"always": lambda s, a: torch.ones(s.shape), **reward.features})
    for weighted in (True, False):
        found = sampled((model, seen, more), weighted=weighted, samples=200, rounds=8)
        assert math.isnan(found.sampling_errors[0])
        assert found.weights["always"] == pytest.approx(0, abs=1e-9)
        assert (found.sampling_errors[1:] > 0).all()


def test_it_prints_exports_and_is_compared():
    model, seen, reward = problem = case(1, n=100)
    found = sampled(problem, samples=500)
    text = str(found)
    assert "Reward by guided cost learning: 100 demonstrations, 500 actions" in text
    assert "Converges to maximum entropy" in text
    assert f"at most {100 * found.ceiling:.1f}%" in text
    kept = json.loads(found.to_json())
    assert kept["rollouts"] == found.rollouts == 5 * 500 + kept["rollouts"] % 500
    assert kept["sampling_errors"]["f0"] == found.sampling_errors[0].item()
    row = cai.compare(model, {"learnt": found}).rows["learnt"]
    assert row.evaluation.elbo < inference.soft_values(model).elbo
    # Expected features are those of the policy in the true dynamics.
    paths = model.simulate(found.policy, 20_000, seed=0)
    taken = cai.Demonstrations.from_trajectories(paths)
    table = cai.tabulate(model)
    sums = totals_seen(table, reward.on(table), observed(table, taken, "error")[0]).features
    starts = seen.states[:, 0].bincount(minlength=4) / len(seen)
    of_each = torch.stack([sums[taken.states[:, 0] == s].mean(0) for s in range(4)])
    torch.testing.assert_close(found.expected, starts.double() @ of_each, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proposals": []}, "proposals: expected at least one policy"),
        ({"weighted": False, "proposals": ["prior"]}, "proposals: expected none without weights"),
        ({"weighted": False, "demonstrator": "prior"}, "demonstrator: expected none without"),
        ({"samples": 3}, "samples: expected at least 10"),
        ({"rounds": 0}, "rounds"),
        ({"start": [1.0]}, "weights: expected 3"),
        ({"start": [1.0, torch.nan, 0.0]}, "start: expected 3 finite weights"),
    ],
)
def test_messages(options, message):
    model, seen, reward = case(1, n=20)
    if "proposals" in options:
        options = options | {
            "proposals": [lambda t, s: model.prior(s) for _ in options["proposals"]]
        }
    if "demonstrator" in options:
        options = options | {"demonstrator": lambda t, s: model.prior(s)}
    with pytest.raises(ValueError, match=message):
        sampled((model, seen, reward), **options)


def test_messages_about_demonstrations_and_proposals():
    model, seen, reward = case(1, n=20)
    with pytest.raises(ValueError, match='ends: expected demonstrations that end "horizon"'):
        sampled((model, seen.with_ends("cut"), reward))
    with pytest.raises(ValueError, match="finite number of steps"):
        sampled((models.ledge(horizon=None), seen, reward))

    with pytest.raises(ValueError, match=r"model: .* got a road network"):
        sampled((models.city(4, 4), seen, ["minutes"]))
    for name, given in (("proposals", [3]), ("demonstrator", 3)):
        with pytest.raises(ValueError, match=rf"{name}(\[0\])?: expected a policy, .* got 3"):
            sampled((model, seen, reward), **{name: given})

    never = inference.soft_values(model, rule="hard").policy
    with pytest.raises(ValueError, match=r"proposals\[0\]: expected a policy that takes every"):
        sampled((model, seen, reward), proposals=[never])

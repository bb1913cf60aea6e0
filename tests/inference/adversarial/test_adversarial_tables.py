"""Adversarial rewards with exact expectations: what the game ends at, and what it favours."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from demonstrated import every_path
from torch import nn

import cai
from cai import inference, models
from cai.inference.adversarial import _fictitious_play
from cai.inference.adversarial._discriminator import Plain, Structured, penalised
from cai.inference.adversarial._occupancies import demonstrated, transitions, visits
from cai.policies.as_table import policy_log_probs
from cai.tables.absorbing import absorbing

ALPHA = 0.7


def moves(seed, horizon, discount=0.9, noise=0.0, S=6, A=3):
    """A model whose rewards are those of states, deterministic unless there is noise."""
    rng = np.random.default_rng(seed)
    P = np.zeros((S, A, S))
    for s, a in itertools.product(range(S), range(A)):
        P[s, a, rng.integers(S)] = 1.0
    P = (1 - noise) * P + noise * rng.dirichlet(np.ones(S), size=(S, A))
    reward = rng.normal(size=(S, 1)).repeat(A, 1)
    start = np.full(S, 1 / S)
    options = {"horizon": horizon, "discount": discount, "initial": start, "temperature": ALPHA}
    return models.tabular(P, reward, **options)


def learn(model, demonstrations, *args, **options):
    return inference.adversarial_reward(model, demonstrations, *args, progress=False, **options)


def off(found, model):
    """(S,), by how much a reward of states is off, up to a constant."""
    away = found.reward.values - cai.tabulate(model).reward[:, 0]
    return away - away.mean()


CASES = [(5, 1.0), (None, 0.9)]


@pytest.mark.parametrize(("horizon", "discount"), CASES)
def test_visits_are_those_of_the_exact_solution(horizon, discount):
    for seed in (0, 1):
        model = moves(seed, horizon, discount, noise=0.5)
        table, solved = cai.tabulate(model), inference.soft_values(model)
        found = visits(table, policy_log_probs(solved.policy, table))
        expected = solved.visits if horizon is None else solved.state_actions
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_demonstrations_are_counted_as_the_visits_of_who_made_them():
    """All paths of a small model, each as often as its probability says, in sixteenths."""
    P = torch.tensor([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.5, 0.5]]])
    model = models.tabular(P, torch.zeros(2, 2), horizon=2, initial=[0.5, 0.5])
    table = cai.tabulate(model)
    half = torch.full((2, 2, 2), 0.5).double().log()
    expected = transitions(table, visits(table, half))
    paths = every_path(table, 2)
    s, a, after = paths.states[:, :-1], paths.actions, paths.states[:, 1:]
    weight = 0.5 * (0.5 * P[s, a, after]).prod(1)
    which = torch.arange(len(paths)).repeat_interleave((weight * 64).round().long())
    torch.testing.assert_close(demonstrated(table, paths[which]), expected, rtol=0, atol=1e-12)


def test_what_follows_absorption_counts_as_the_discount_and_the_horizon_say():
    """A deterministic walk into an absorbing state, seen until it gets there."""
    P = torch.zeros(3, 2, 3)
    P[0, :, 1] = P[1, :, 2] = P[2, :, 2] = 1.0
    seen = cai.Demonstrations.from_paths([[0, 1, 2]] * 3, [[0, 1]] * 3, ends="absorbed")
    acts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]).double().log()
    for horizon, discount in ((None, 0.8), (5, 1.0), (None, 1.0)):
        paid = -torch.ones(3, 2)
        paid[2] = 0.0
        model = models.tabular(P, paid, horizon=horizon, discount=discount, initial=[1.0, 0, 0])
        table = cai.tabulate(model)
        assert absorbing(table).tolist() == [False, False, True]
        policy = acts if horizon is None else acts.expand(5, 3, 2)
        expected = transitions(table, visits(table, policy))
        torch.testing.assert_close(demonstrated(table, seen), expected, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="a last state that no action leaves"):
        demonstrated(table, cai.Demonstrations.from_paths([[0, 1]], [[0]], ends="absorbed"))
    with pytest.raises(ValueError, match="seen to their end"):
        demonstrated(table, seen.with_ends("cut"))


# The discriminator


@pytest.mark.parametrize(("horizon", "discount"), [(None, 0.9), (1, 1.0)])
def test_at_its_optimum_f_is_the_log_ratio_of_visits_and_log_pi(horizon, discount):
    """Any generator, stochastic dynamics, a free r(s,a): nothing is left that f cannot be."""
    model = moves(1, horizon, discount, noise=0.5)
    table = cai.tabulate(model)
    expert = policy_log_probs(inference.soft_values(model).policy, table)
    rng = torch.Generator().manual_seed(0)
    other = torch.randn(expert.shape, generator=rng, dtype=torch.float64).log_softmax(-1)
    real, made = (transitions(table, visits(table, x)) for x in (expert, other))
    ratio = other - table.log_prior
    structured = Structured(cai.TabularReward("action"), table)
    odds = structured.fit(real, made, ratio, 0.0)
    expected = real.sum(-1).log() - made.sum(-1).log()
    counts = made > 0
    torch.testing.assert_close(
        odds[counts], expected.unsqueeze(-1).expand(odds.shape)[counts], rtol=0, atol=1e-5
    )
    f = structured().detach()[counts]
    torch.testing.assert_close(
        f, (expected + ratio).unsqueeze(-1).expand(odds.shape)[counts], rtol=0, atol=1e-5
    )
    plain = Plain().fit(real, made, ratio, 0.0)
    torch.testing.assert_close(plain[counts], odds[counts], rtol=0, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_the_loss_is_lowest_there(penalty):
    """By the derivative that torch takes, where the log-odds are restricted and penalised."""
    model = moves(2, 4, 1.0, noise=0.5)
    table = cai.tabulate(model)
    expert = policy_log_probs(inference.soft_values(model).policy, table)
    prior = table.log_prior.expand(expert.shape)
    real, made = (transitions(table, visits(table, x)) for x in (expert, prior))
    ratio = torch.zeros_like(expert)
    structured = Structured(cai.TabularReward("state"), table)
    structured.fit(real, made, ratio, penalty)
    loss = penalised(structured() - ratio.unsqueeze(-1), real, made, penalty)
    for slope in torch.autograd.grad(loss, list(structured.parameters())):
        assert slope.abs().max() < 1e-6
    x = torch.zeros(real.shape[:-1], dtype=torch.float64, requires_grad=True)
    penalty = max(penalty, 1e-3)
    with torch.no_grad():
        x += Plain().fit(real, made, ratio, penalty)[..., 0]
    loss = penalised(x.unsqueeze(-1).expand(real.shape), real, made, penalty)
    assert torch.autograd.grad(loss, x)[0].abs().max() < 1e-9


# What the game ends at


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("horizon", "discount"), CASES)
def test_on_linked_deterministic_dynamics_the_reward_is_right_up_to_a_constant(
    seed, horizon, discount
):
    model = moves(seed, horizon, discount)
    solved = inference.soft_values(model)
    found = learn(model, solved.policy)
    assert found.converged
    assert off(found, model).abs().max() < 1e-3
    assert (found.on_demonstrations, found.on_generator) == pytest.approx((0.5, 0.5), abs=1e-6)
    table = cai.tabulate(model)
    pair = (policy_log_probs(x, table).exp() for x in (found.policy, solved.policy))
    torch.testing.assert_close(*pair, rtol=0, atol=1e-4)
    # The potential is the value, but for what the constant is worth.
    away = (found.potential - solved.V).view(-1, 6)
    away = away - away.mean(-1, keepdim=True)
    assert away.abs().max() < 1e-3
    assert found.history["loss"][-1] == pytest.approx(math.log(4), abs=1e-9)


@pytest.mark.parametrize(("horizon", "discount"), CASES)
def test_where_states_are_not_linked_it_is_wrong_without_any_loss(horizon, discount):
    model = moves(0, horizon, discount)
    found = learn(model, inference.soft_values(model).policy)
    assert found.history["loss"][-1] == pytest.approx(math.log(4), abs=1e-9)
    assert off(found, model).abs().max() > 1
    assert "not linked" in str(found)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize(("horizon", "discount"), CASES)
def test_on_stochastic_dynamics_it_is_wrong_and_the_fit_by_likelihood_is_not(
    seed, horizon, discount
):
    model = moves(seed, horizon, discount, noise=0.5)
    found = learn(model, inference.soft_values(model).policy)
    assert found.converged
    assert off(found, model).abs().max() > 0.3
    assert found.distance > 0.05
    assert "stochastic" in str(found)


def test_without_a_discount_absorbing_ends_determine_the_constant_as_well():
    model = models.gridworld(["S..", "...", "..G"], horizon=None, slip=0.0, step_reward=-1.7)
    found = learn(model, inference.soft_values(model).policy)
    paid = torch.full((9,), -1.7).double()
    paid[8] = 0.0
    torch.testing.assert_close(found.reward.values[:8], paid[:8], rtol=0, atol=1e-3)
    assert found.lengths[1] == pytest.approx(found.lengths[0], abs=1e-4)


def test_weights_of_features_are_found_again_and_a_module_finds_the_same():
    model = moves(1, 5, 1.0)
    generator = torch.Generator().manual_seed(3)
    each = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    reward = cai.LinearReward({"one": each[0], "two": each[1]})
    expert = inference.soft_values(reward.weighted([1.0, -0.5]).given_to(model)).policy
    found = learn(model, expert, reward)
    assert list(found.weights.values()) == pytest.approx([1.0, -0.5], abs=1e-3)
    assert cai.evaluate(found.model, found.policy).elbo == pytest.approx(
        inference.soft_values(found.model).elbo, abs=1e-6
    )

    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.psi = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, s, a):
            s, a = torch.broadcast_tensors(s, a)
            return torch.einsum("k,k...->...", self.psi, each[:, s, a])

    module = Weights()
    other = learn(model, expert, module, rounds=60)
    assert other.reward.module.psi.tolist() == pytest.approx([1.0, -0.5], abs=1e-2)
    assert module.psi.abs().max() == 0  # a copy was trained


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize(("horizon", "discount"), CASES)
def test_gail_ends_at_one_half_with_the_demonstrators_policy_and_no_reward(
    horizon, discount, noise
):
    model = moves(1, horizon, discount, noise)
    solved = inference.soft_values(model)
    found = learn(model, solved.policy, form="gail")
    assert found.converged
    assert found.reward is None
    assert found.potential is None
    assert found.log_odds.abs().max() < 1e-2
    assert found.distance < 1e-5
    table = cai.tabulate(model)
    pair = (policy_log_probs(x, table).exp() for x in (found.policy, solved.policy))
    torch.testing.assert_close(*pair, rtol=0, atol=1e-4)


def test_a_gan_over_trajectories_ends_at_the_sum_of_log_pi_which_luck_tells_from_the_reward():
    """All paths one by one: of the demonstrator, and of the action prior."""
    spreads = []
    for noise in (0.0, 0.6):
        model = moves(1, 3, 1.0, noise, S=3, A=2)
        table, solved = cai.tabulate(model), inference.soft_values(model)
        paths = every_path(table, 3)
        s, a, after = paths.states[:, :-1], paths.actions, paths.states[:, 1:]
        t = torch.arange(3)
        log_pi = policy_log_probs(solved.policy, table)[t, s, a].sum(1)
        log_p = table.log_prior[s, a].sum(1)
        chance = table.dense(table.log_dynamics)[s, a, after].prod(1).log()
        of_expert, of_prior = (x + chance - math.log(3) for x in (log_pi, log_p))
        assert of_expert.exp().sum() == pytest.approx(1)
        # The best discriminator of trajectories, p*/(p* + p), path by path:
        log_odds = of_expert - of_prior
        torch.testing.assert_close(log_odds, log_pi - log_p, rtol=0, atol=1e-12)
        away = log_odds - (table.reward[s, a].sum(1) - solved.V[0, s[:, 0]]) / ALPHA
        spreads.append(float(away.max() - away.min()))
        if noise == 0:  # where AIRL's f adds up to it
            found = learn(model, solved.policy)
            ratio = policy_log_probs(found.policy, table) - table.log_prior
            f = found.log_odds + ratio.unsqueeze(-1)
            same = cai.tabulate(model).successor_index.view(3, 2, -1)[s, a] == after.unsqueeze(-1)
            k = same.long().argmax(-1)
            total = f[t, s, a, k].sum(1)
            torch.testing.assert_close(total, log_odds, rtol=0, atol=1e-3)
    assert spreads[0] < 1e-9
    assert spreads[1] > 0.3


# Lengths


def walk(horizon, discount, slip):
    options = {"step_reward": -0.5, "horizon": horizon, "discount": discount, "slip": slip}
    return models.gridworld(["S..", "...", "..G"], **options)


@pytest.mark.parametrize(("horizon", "discount"), [(None, 0.95), (20, 1.0)])
def test_no_length_is_favoured_unless_absorbing_states_are_ignored(horizon, discount):
    """The demonstrator takes 5 steps: log D wants to end, -log(1 - D) wants to live."""
    model = walk(horizon, discount, 0.1)
    expert = inference.soft_values(model).policy
    for signal in ("log_odds", "log_d", "minus_log")[: 1 if horizon is None else 3]:
        found = learn(model, expert, form="gail", signal=signal)
        assert found.lengths[1] == pytest.approx(found.lengths[0], abs=1e-3)
    options = {"form": "gail", "ends": "ignored", "rounds": 20}
    short = learn(model, expert, signal="log_d", **options)
    long = learn(model, expert, signal="minus_log", **options)
    assert short.lengths[1] < short.lengths[0] - 0.3
    assert long.lengths[1] > long.lengths[0] + 1
    airl = learn(walk(horizon, discount, 0.0), inference.soft_values(walk(horizon, discount, 0.0)))
    assert airl.lengths[1] == pytest.approx(airl.lengths[0], abs=1e-3)


def arrivals(n, seed):
    """Walks to the goal, of the soft policy without a horizon; and their lengths."""
    model = walk(60, 1.0, 0.0)
    paths = model.simulate(inference.soft_values(walk(None, 0.95, 0.0)).policy, n, seed=seed)
    states, actions = [], []
    for s, a in zip(paths.states.tolist(), paths.actions.tolist(), strict=True):
        if 8 in s:
            L = s.index(8)
            states.append(s[: L + 1])
            actions.append(a[:L])
    seen = cai.Demonstrations.from_paths(states, actions, ends="absorbed")
    return seen, seen.lengths.double()


@pytest.mark.parametrize("form", ["airl", "gail"])
def test_of_few_demonstrations_the_length_is_theirs_within_noise(form):
    model = walk(None, 0.95, 0.0)
    for seed in range(3):
        seen, lengths = arrivals(100, seed)
        found = learn(model, seen, form=form)
        # Steps count by their discount, as those of the generator do.
        counted = (1 - 0.95**lengths) / 0.05
        assert found.lengths[0] == pytest.approx(counted.mean().item())
        noise = counted.std().item() / len(seen) ** 0.5
        assert abs(found.lengths[1] - found.lengths[0]) < 2 * noise
        assert found.demonstrations == len(seen)


# Messages and files


def line_of(length):
    """A walk along a line, on which each step asks for the right one of three actions."""
    P = torch.zeros(length + 2, 3, length + 2)
    P[:, :, length + 1] = 1.0
    for s in range(length):
        P[s, 0] = torch.eye(length + 2)[s + 1]
    P[length, :, length + 1], P[length] = 1.0, torch.eye(length + 2)[length + 1]
    start = torch.eye(length + 2)[0]
    model = models.tabular(P, torch.zeros(length + 2, 3), horizon=length, initial=start)
    return model, cai.Demonstrations.from_paths([list(range(length + 1))], [[0] * length])


def test_a_discriminator_that_tells_everything_apart_and_a_generator_that_collapsed_say_so():
    """Before the generator learns, it stays on the line for half a step of 200 on average."""
    model, seen = line_of(200)
    apart = learn(model, seen, form="gail", rounds=1, penalty=0.0)
    assert apart.on_demonstrations > 0.99
    assert apart.on_generator < 0.01
    assert "tells everything apart" in str(apart)
    assert "tells everything apart" not in str(learn(model, seen, form="gail", penalty=0.0))
    # A demonstrator of many ways, and a generator that has hardly moved from staying where it is.
    P = torch.stack([torch.eye(30), torch.eye(30).roll(1, 1)], 1)
    prior = torch.tensor([[0.99, 0.01]]).repeat(30, 1)
    still = models.tabular(
        P, torch.zeros(30, 2), horizon=29, initial=torch.eye(30)[0], action_prior=prior
    )
    half = cai.TabularPolicy.from_log_probs(torch.full((30, 2), 0.5).double().log())
    collapsed = learn(still, half, form="gail", rounds=1)
    assert "collapsed" in str(collapsed)
    assert "collapsed" not in str(learn(still, half, form="gail"))


def test_an_interrupted_game_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    model = moves(1, 5, 1.0)
    expert = inference.soft_values(model).policy
    for form in ("airl", "gail"):
        whole = learn(model, expert, form=form)
        step, calls = _fictitious_play.FictitiousPlay.step, itertools.count()

        def interrupted(self, step=step, calls=calls):
            if next(calls) == 4:
                raise KeyboardInterrupt
            step(self)

        path = tmp_path / f"{form}.pt"
        with monkeypatch.context() as patched:
            patched.setattr(_fictitious_play.FictitiousPlay, "step", interrupted)
            part = learn(model, expert, form=form, checkpoint=path)
        assert part.steps == 4
        assert not part.converged
        assert "interrupted" in str(part)
        if not path.exists():  # an interrupt within a step keeps what was written before it
            part = learn(model, expert, form=form, checkpoint=path, rounds=4)
        rest = learn(model, expert, form=form, checkpoint=path)
        assert rest.steps == whole.steps
        assert rest.history["loss"].tolist() == whole.history["loss"].tolist()
        assert torch.equal(rest.log_odds, whole.log_odds)
        with pytest.raises(ValueError, match="penalty"):
            learn(model, expert, form=form, checkpoint=path, penalty=0.5)


def test_it_prints_exports_and_is_compared():
    seen, _ = arrivals(50, 0)
    model = walk(None, 0.95, 0.0)
    found = learn(model, seen, cai.LinearReward({"walking": lambda s, a: s < 8}))
    text = str(found)
    assert f"{len(seen)} demonstrations, {int(seen.lengths.sum())} actions" in text
    assert "Converges to f = log ρ*/ρ + log π/p" in text
    assert "Weight of walking" in text
    kept = json.loads(found.to_json())
    assert kept["weights"] == found.weights
    assert kept["on_generator"] == found.on_generator
    assert len(kept["history"]["loss"]) == kept["steps"] == found.steps
    assert found.history["on_demonstrations"][-1] == found.on_demonstrations
    assert found.history["distance"][-1] == found.distance
    assert cai.compare(model, {"learnt": found}).rows["learnt"].evaluation.elbo < 0
    assert learn(model, seen, form="gail").weights == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "gan"}, "form: expected"),
        ({"signal": "d"}, "signal: expected"),
        ({"ends": "cut"}, "ends: expected"),
        ({"generator": "ppo"}, "generator: expected"),
        ({"penalty": -1.0}, "penalty: expected a finite number of at least 0"),
        ({"penalty": float("inf")}, "penalty: expected a finite number of at least 0"),
        ({"training": 3, "generator": "soft_q"}, "training: expected an AdversarialTraining, got"),
        ({"rounds": 0}, "rounds"),
        ({"form": "gail", "reward": cai.TabularReward()}, 'reward: expected none for form="gail"'),
        ({"reward": "state"}, "reward: expected a LinearReward"),
        ({"demonstrations": 3}, "demonstrations: expected Demonstrations, or a policy"),
        ({"training": inference.AdversarialTraining()}, 'None for generator="exact"'),
    ],
)
def test_messages(options, message):
    model = walk(5, 1.0, 0.0)
    given = {"demonstrations": inference.soft_values(model).policy} | options
    with pytest.raises(ValueError, match=message):
        learn(model, **given)


def test_a_problem_of_another_kind_is_named_as_it_was_given():
    model = walk(5, 1.0, 0.0)
    with pytest.raises(ValueError, match="problem: expected a model or its table, or what"):
        learn("a model", inference.soft_values(model).policy)


def test_trajectories_that_never_end_are_refused():
    endless = models.tabular(torch.eye(2).repeat(2, 1, 1), torch.zeros(2, 2), horizon=None)
    with pytest.raises(ValueError, match="trajectories that end"):
        learn(endless, lambda t, s: endless.prior(s), form="gail")

"""Long-run averages: eigenvalues, long horizons, and the certificate."""

import dataclasses
import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.inference.infinite import _gain
from cai.infinite import transient
from cai.infinite.gain_and_bias import LongRun
from cai.numerics.state_reduction import StateReduction

seeds = st.integers(0, 10**6)


def problem(seed, S=5, A=3, temperature=0.7, mixing=0.0, **changes):
    """A random model in which every state leads everywhere in the end, with arrival rewards."""
    rng = np.random.default_rng(seed)
    P = rng.random((S, A, S)) * (rng.random((S, A, S)) < 0.5)
    P[np.arange(S), :, (np.arange(S) + 1) % S] += 0.2
    P += mixing
    arguments = {
        "horizon": None,
        "arrival_reward": rng.normal(size=(S, A, S)),
        "temperature": temperature,
        "action_prior": rng.random((S, A)) + 0.05,
    }
    P /= P.sum(-1, keepdims=True)
    return models.tabular(P, rng.normal(size=(S, A)), **(arguments | changes))


@given(seed=seeds)
def test_the_eigenvalue_at_optimism_one(seed):
    model = problem(seed)
    table = cai.tabulate(model)
    M = table.dense(table.log_weights).sum(1).numpy()
    values, vectors = np.linalg.eig(M)
    top = values.real.argmax()
    found = inference.average_reward(model, 1.0)
    assert found.gain == pytest.approx(0.7 * math.log(values[top].real), abs=1e-12)
    v = np.log(np.abs(vectors[:, top].real)) * 0.7
    ours = found.V.numpy()
    np.testing.assert_allclose(ours - ours[0], v - v[0], atol=1e-10)
    # Doob's transform of M is the tilted chain, and left times right eigenvector where it lives.
    values, left = np.linalg.eig(M.T)
    weights = np.abs(left[:, values.real.argmax()].real * vectors[:, top].real)
    np.testing.assert_allclose(found.states, weights / weights.sum(), atol=1e-10)


def settled(model, eta):
    """Values of so many steps that neither start nor end is felt half way, and how many those are.

    Two states that luck would rather stay in are left as seldom as it likes: what a chain forgets
    a step, λ, may be close to one. A change of (1 - λ) λ^t of 1e-11 a step leaves about 1e-10.
    """
    for T in (300, 1200, 4800):
        far = inference.soft_values(dataclasses.replace(model, horizon=T), eta)
        change = (far.states[T // 2] - far.states[T // 2 - 1]).abs().max()
        tilt = (far.V[0] - 2 * far.V[1] + far.V[2]).abs().max()
        if change < 1e-11 and tilt < 1e-11:
            break
    return far, T


@example(seed=794040, eta=3.0)  # λ = 0.893
@given(seed=seeds, eta=st.sampled_from([-2.0, -0.7, 0.0, 1e-6, 0.5, 3.0]))
def test_a_long_horizon_gains_as_much_a_step(seed, eta):
    """V_0 - V_1 → g, the policy in the middle is the stationary one; and Q is a fixed point."""
    model = problem(seed, temperature=2.0, mixing=0.2)  # every chain forgets in time
    found = inference.average_reward(model, eta)
    far, T = settled(model, eta)
    gains = torch.full((5,), found.gain, dtype=torch.float64)
    torch.testing.assert_close(far.V[0] - far.V[1], gains, rtol=0, atol=1e-9)
    torch.testing.assert_close(far.policy.log_probs[0], found.policy.log_probs, rtol=0, atol=1e-9)
    torch.testing.assert_close(far.states[T // 2], found.states, rtol=0, atol=1e-9)
    assert found.error < 1e-11
    torch.testing.assert_close(far.Q[0] - far.V[1, 0], found.Q - found.V[0], rtol=0, atol=1e-8)


def test_the_gain_is_reward_less_the_cost_of_control():
    """At η = 0: Σ_s states E_π[r + r⁺ - α log π/p], by hand."""
    model = problem(3)
    table, found = cai.tabulate(model), inference.average_reward(model)
    log_pi = found.policy.log_probs
    paid = table.reward + (table.log_dynamics.exp() * table.arrival_reward).sum(-1)
    worth = (log_pi.exp() * (paid - 0.7 * (log_pi - table.log_prior))).sum(-1)
    assert found.gain == pytest.approx((found.states @ worth).item(), abs=1e-12)


@given(seed=seeds, eta=st.sampled_from([-1.0, 0.0, 1.0]))
def test_the_certificate_holds_wherever_one_stops(seed, eta):
    """The bracket of an early stop is wide, and the truth lies within."""
    model = problem(seed)
    truth = inference.average_reward(model, eta)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gain, "_TOLERANCE", 0.5)
        early = inference.average_reward(model, eta)
    assert early.error > 1e-6
    assert abs(early.gain - truth.gain) <= early.error + truth.error
    assert early.error <= 0.25 * 0.7 * max(1.0, abs(early.gain) / 0.7 + 0.5) + 1e-12


def test_a_cycle_of_three_in_closed_form():
    """No choice, and a period of three: value iteration alone would swing for ever."""
    P = torch.eye(3).roll(1, 1).unsqueeze(1)
    found = inference.average_reward(models.tabular(P, [[3.0], [0.0], [-1.5]], horizon=None))
    assert found.gain == pytest.approx(0.5, abs=1e-14)
    assert found.states.tolist() == pytest.approx([1 / 3] * 3)
    assert (found.V[0] - found.V[1]).item() == pytest.approx(2.5)


def test_forbidden_states_are_left_out():
    """A reward of -inf that can be avoided is avoided; where it cannot, V is -inf."""
    P = torch.zeros(3, 2, 3)
    P[0, 0, 0] = P[0, 1, 1] = P[1, 0, 0] = P[1, 1, 2] = P[2, :, 2] = 1
    r = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-math.inf, -math.inf]])
    found = inference.average_reward(models.tabular(P, r, horizon=None, temperature=0.5))
    M = np.array([[math.exp(2), 1], [1, 0]]) / 2  # going on to state 2 is out of the question
    assert found.gain == pytest.approx(0.5 * math.log(np.linalg.eigvalsh(M).max()), abs=1e-12)
    assert found.V[2] == -math.inf
    assert found.states[2] == 0
    assert not found.policy.log_probs.isnan().any()


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_any_scale_of_rewards(scale):
    small = inference.average_reward(problem(4))
    table = cai.tabulate(problem(4))
    scaled = dataclasses.replace(
        table,
        reward=table.reward * scale,
        arrival_reward=table.arrival_reward * scale,
        temperature=table.temperature * scale,
    )
    assert inference.average_reward(scaled).gain == pytest.approx(small.gain * scale, rel=1e-11)


def stays(p, reward, start=1, **changes):
    """State 0 is never left and pays nothing; state 1 is stayed in with probability p."""
    arguments = {"initial": np.eye(2)[start], "horizon": None} | changes
    return models.tabular([[[1.0, 0.0]], [[1 - p, p]]], [[0.0], [reward]], **arguments)


@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize(
    ("reward", "eta", "gain"),
    [
        (1.0, 1.0, 1 + math.log(0.5)),
        (3.0, 0.5, 3 + 2 * math.log(0.5)),
        (-3.0, -2.0, -3 - math.log(0.5) / 2),
        (0.5, 1.0, 0.0),  # luck had better leave
        (-0.2, -2.0, 0.0),  # and so had nature
        (1.0, 0.0, 0.0),  # chance leaves in the end
        (1.0, -1.0, 0.0),
        (-1.0, 1.0, 0.0),
    ],
)
def test_where_luck_or_nature_stays_the_average_depends_on_the_start(rule, reward, eta, gain):
    """By hand: to stay costs -log(p)/η a step, which luck pays, and nature."""
    found = inference.average_reward(stays(0.5, reward), eta, rule)
    assert found.gain == pytest.approx(gain, abs=1e-12)
    assert abs(found.gain - gain) <= found.error
    assert found.states.tolist() == ([0, 1] if gain else [1, 0])
    elsewhere = math.copysign(math.inf, -gain)
    assert not gain or found.V.tolist() == [elsewhere, 0]
    assert not found.Q.isnan().any()
    assert not found.policy.log_probs.isnan().any()
    other = inference.average_reward(stays(0.5, reward, start=0), eta, rule)
    assert other.gain == pytest.approx(0, abs=1e-12)
    assert other.states.tolist() == [1, 0]
    assert not gain or other.V.tolist() == [0, -elsewhere]


@given(
    p=st.floats(1e-9, 1 - 1e-9),
    reward=st.floats(-20, 20),
    eta=st.one_of(st.floats(0.05, 5), st.floats(-5, -0.05)),
)
def test_staying_at_any_price(p, reward, eta):
    found = inference.average_reward(stays(p, reward, temperature=2.0), eta)
    best = max if eta > 0 else min
    assert found.gain == pytest.approx(best(0, reward + 2 * math.log(p) / eta), abs=1e-7)


def test_several_starts_and_several_levels():
    """Luck takes the best start, nature the worst; by the eigenvalues of each class."""
    P = np.zeros((4, 1, 4))
    P[0, 0, 0] = 1
    P[1, 0, [0, 1]] = 0.3, 0.7
    P[2, 0, [1, 3]] = 0.4, 0.6
    P[3, 0, [2, 0]] = 0.5, 0.5
    reward = np.array([[-4.0], [1.0], [2.0], [2.5]])
    both = (2 + 2.5 + math.log(0.3)) / 2  # the circle of 2 and 3, at η = 1
    for start, gain in (
        ([1, 0, 0, 0], -4.0),
        ([0, 1, 0, 0], 1 + math.log(0.7)),
        ([0, 0, 1, 0], both),
        ([1, 1, 0, 0], 1 + math.log(0.7)),
        ([1, 1, 1, 1], both),
    ):
        model = models.tabular(P, reward, initial=start, horizon=None)
        assert inference.average_reward(model, 1.0).gain == pytest.approx(gain, abs=1e-12)
    mirrored = models.tabular(P, -reward, initial=[1, 1, 1, 1], horizon=None)
    assert inference.average_reward(mirrored, -1.0).gain == pytest.approx(-both, abs=1e-12)


def test_an_agent_that_can_stay_does_so_at_the_price_of_its_policy():
    """Two actions at equal odds in state 1: to stay for ever costs α log 2 a step."""
    P = [[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]
    for start, soft, hard in ((1, 1 - 0.5 * math.log(2), 1.0), (0, 0.0, 0.0)):
        model = models.tabular(
            P, [[0.0, 0.0], [1.0, 0.0]], initial=np.eye(2)[start], horizon=None, temperature=0.5
        )
        for eta in (-1.0, 0.0, 1.0):
            found = inference.average_reward(model, eta)
            assert found.gain == pytest.approx(soft, abs=1e-12)
            assert inference.average_reward(model, eta, "hard").gain == pytest.approx(hard)


def test_chance_between_averages_is_refused():
    """From state 2 half of the trajectories come to where one can stay and be paid."""
    P = np.zeros((3, 2, 3))
    P[0, :, 0] = P[1, 0, 1] = P[1, 1, 0] = 1
    P[2, :, :2] = 0.5
    model = models.tabular(P, [[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]], initial=[0, 0, 1], horizon=None)
    for rule in ("soft", "hard"):
        with pytest.raises(ValueError, match=r"depends on the start, and on chance: .* state 2"):
            inference.average_reward(model, 0.0, rule)
        price = math.log(2) if rule == "soft" else 0.0
        luck = inference.average_reward(model, 1.0, rule)
        assert luck.gain == pytest.approx(2 - price, abs=1e-12)
        assert inference.average_reward(model, -1.0, rule).gain == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("leave", [1e-3, 1e-14, 1e-30, 1e-200])
@pytest.mark.parametrize("reward", [-2.0, 0.5, 2.0])
def test_a_state_that_is_hardly_ever_left(leave, reward):
    """The eigenvector of a matrix of two by two in closed form, in 300 digits."""
    model = models.tabular(
        [[[1 - leave, leave]], [[0.5, 0.5]]], [[0.0], [reward]], horizon=None, initial=[1, 1]
    )
    found = inference.average_reward(model, 1.0)
    with localcontext() as context:
        context.prec = 300
        stay, go = 1 - Decimal(leave), Decimal(leave)
        half = Decimal(reward).exp() / 2
        root = ((stay - half) ** 2 + 4 * go * half).sqrt()
        top = (stay + half + root) / 2
        ahead = (half / (top - half)).ln() if top > half else -((top - stay) / go).ln()
        assert found.gain == pytest.approx(float(top.ln()), abs=1e-12)
        difference = (found.V[1] - found.V[0]).item()
        assert difference == pytest.approx(float(ahead), abs=1e-9, rel=1e-12)
    assert found.error < 1e-11


def test_a_wild_step_is_no_place_to_stop():
    """At η = 1 Newton's first step goes 1e14 nats, where a bracket is narrow beside its bounds."""
    model = models.tabular(
        [[[1 - 1e-14, 1e-14]], [[1.0, 0.0]]], [[0.0], [-3.0]], horizon=None, initial=[1, 0]
    )
    found = inference.average_reward(model, 1.0)
    assert found.gain == pytest.approx(0, abs=1e-13)
    assert (found.V[1] - found.V[0]).item() == pytest.approx(-3.0, abs=1e-12)


def test_what_floats_do_not_tell_is_refused(monkeypatch):
    monkeypatch.setattr(_gain, "_STEPS", 1)
    for eta in (-1.0, 0.0, 1.0):
        with pytest.raises(ValueError, match=r"lies between .* state \d gains little"):
            inference.average_reward(problem(2), eta)


def policies(S, A):
    return (np.array(choice) for choice in itertools.product(range(A), repeat=S))


@given(seed=seeds, eta=st.sampled_from([-2.0, -0.5, 0.0, 0.5, 1.0]))
def test_the_hard_rule_against_every_policy(seed, eta):
    """(α/η) log of the largest eigenvalue of each policy's matrix; at η = 0 what it earns."""
    model = problem(seed, S=4, A=2, mixing=0.05)
    table = cai.tabulate(model)
    P = table.dense(table.log_dynamics).numpy()
    paid = (table.reward.unsqueeze(-1) + table.arrival_reward).expand(4, 2, 4).numpy()
    gains = []
    for choice in policies(4, 2):
        p, r = P[range(4), choice], paid[range(4), choice]
        if eta == 0:
            matrix = np.vstack([np.eye(4) - p.T, np.ones(4)])
            share = np.linalg.lstsq(matrix, np.eye(5)[4], rcond=None)[0]
            gains.append((share @ (p * r).sum(1)).item())
        else:
            top = np.abs(np.linalg.eigvals(p * np.exp(eta * r / 0.7))).max()
            gains.append(0.7 / eta * math.log(top))
    found = inference.average_reward(model, eta, "hard")
    assert found.gain == pytest.approx(max(gains), abs=1e-10)
    assert abs(found.gain - max(gains)) <= found.error + 1e-11
    chosen = found.policy.log_probs.argmax(-1)
    assert gains[int(chosen @ torch.tensor([8, 4, 2, 1]))] == pytest.approx(max(gains), abs=1e-10)
    backed_up = found.Q.amax(-1)
    torch.testing.assert_close(backed_up, found.V + found.gain, rtol=0, atol=1e-9)


def test_the_hard_average_is_the_limit_of_discounted_values():
    """(1 - γ) V → g and V_γ(s) - V_γ(0) → V(s) - V(0), with an error of order 1 - γ."""
    for seed in range(4):
        model = problem(seed)
        found = inference.average_reward(model, 0.0, "hard")
        far = inference.soft_values(dataclasses.replace(model, discount=1 - 1e-6), rule="hard").V
        assert (far * 1e-6).tolist() == pytest.approx([found.gain] * 5, abs=1e-4)
        ours = (found.V - found.V[0]).tolist()
        assert (far - far[0]).tolist() == pytest.approx(ours, abs=1e-3)


def test_hard_averages_by_hand():
    """Circles of two and three states, and a machine that is replaced when it is worn."""
    P, reward = np.zeros((4, 2, 4)), np.zeros((4, 2))
    P[0, 0, 1] = P[1, 0, 0] = P[1, 1, 2] = P[2, :, 3] = P[3, :, 0] = P[0, 1, 0] = 1
    reward[0], reward[1], reward[2], reward[3] = [0, 1], [2.5, 0], [3, 3], [2.5, 2.5]
    # 1, (0 + 2.5)/2 and (0 + 0 + 3 + 2.5)/4
    found = inference.average_reward(models.tabular(P, reward, horizon=None), 0.0, "hard")
    assert found.gain == pytest.approx(1.375, abs=1e-13)
    assert found.states.tolist() == pytest.approx([0.25] * 4)
    assert found.policy.log_probs[1].exp().tolist() == [0, 1]
    worn = np.zeros((3, 2, 3))
    worn[0, 0], worn[1, 0], worn[2, 0] = [0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]
    worn[:, 1, 0] = 1
    earns = np.array([[10.0, -5], [6, -5], [0, -5]])
    # Replaced at 2: 2 steps at 10, 2 at 6, 1 at -5; replaced at 1: 2 steps at 10, 1 at -5.
    found = inference.average_reward(models.tabular(worn, earns, horizon=None), 0.0, "hard")
    assert found.gain == pytest.approx(27 / 5, abs=1e-13)
    assert found.states.tolist() == pytest.approx([0.4, 0.4, 0.2])


@pytest.mark.parametrize("eta", [-1.0, 0.0, 1.0])
def test_hard_ties_are_shared_as_the_prior_says(eta):
    """Two circles through state 0 that earn the same, and a grid where every way is as good."""
    P = np.zeros((3, 2, 3))
    P[0, 0, 1] = P[0, 1, 2] = P[1, :, 0] = P[2, :, 0] = 1
    model = models.tabular(
        P, [[0.0, 0], [1, 1], [1, 1]], horizon=None, action_prior=[[1.0, 3], [1, 1], [1, 1]]
    )
    found = inference.average_reward(model, eta, "hard")
    assert found.gain == pytest.approx(0.5, abs=1e-14)
    assert found.policy.log_probs[0].exp().tolist() == pytest.approx([0.25, 0.75])
    assert found.states.tolist() == pytest.approx([0.5, 0.125, 0.375])
    alike = models.tabular(np.full((4, 3, 4), 0.25), np.full((4, 3), -1.0), horizon=None)
    found = inference.average_reward(alike, eta, "hard")
    assert found.gain == pytest.approx(-1, abs=1e-14)
    assert found.V.abs().max() < 1e-13


def test_policies_with_several_classes_are_left_behind():
    """Stay where you are, or move on at a price: Howard's first policy has a class a state."""
    S, price = 6, 7.0
    P, reward = np.zeros((S, 2, S)), np.zeros((S, 2))
    P[range(S), 0, range(S)] = P[range(S), 1, (np.arange(S) + 1) % S] = 1
    reward[:, 0], reward[:, 1] = [0.0, 3, 1, 2, 3, 1], -price
    for eta in (-1.0, 0.0, 1.0):
        found = inference.average_reward(models.tabular(P, reward, horizon=None), eta, "hard")
        assert found.gain == pytest.approx(3, abs=1e-13)
        away = found.V - found.V[1]
        assert away[0].item() == pytest.approx(-price - 3)
        assert away[5].item() == pytest.approx(2 * (-price - 3))


@pytest.mark.parametrize("exit_probability", [1e-3, 1e-16, 1e-200])
def test_the_long_run_of_a_chain_by_hand(exit_probability):
    """Two closed classes, and two states in between that hardly ever let go."""
    e = exit_probability
    chain = np.zeros((5, 5))
    chain[0, 1] = chain[1, 0] = chain[4, 4] = 1
    chain[2, 3], chain[2, 0] = 1 - e, e
    chain[3, 2], chain[3, 4] = 1 - 3 * e, 3 * e
    found = LongRun(chain)
    gain, bias = found.gain_and_bias(np.array([2.0, 4.0, 1.0, 1.0, 7.0]))
    last = 3 / (4 - 3 * e)  # one of four exits from 2 on leads to 0, but for those that meet
    there = (3 - 3 * e) / (4 - 3 * e)
    assert gain.tolist() == pytest.approx([3, 3, 3 + 4 * there, 3 + 4 * last, 7], rel=1e-14)
    assert bias[[0, 1, 4]].tolist() == [0, 1, 0]
    right = (1 - gain[2]) * 2 / (4 * e)  # 1/(2e) steps, each for the gain's sake a loss
    assert bias[2] == pytest.approx(right, rel=10 * e + 1e-13)
    visits = found.visits(np.array([0.0, 0.0, 1.0, 0.0, 0.0]))
    assert visits.tolist() == pytest.approx([(1 - there) / 2] * 2 + [0, 0, there], rel=1e-12)


def test_shares_of_two_halves_that_hardly_ever_meet():
    """Balance by hand: what leaves one half by 1e-20 comes back by 3e-20."""
    chain = np.array([[0.5, 0.5, 0, 0], [0.5, 0.5, 1e-20, 0], [0, 3e-20, 0.5, 0.5], [0, 0, 1, 0]])
    shares = LongRun(chain).visits(np.ones(4) / 4)
    assert shares.tolist() == pytest.approx([1 / 2.5, 1 / 2.5, 1 / 7.5, 1 / 15], rel=1e-12)


@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize("eta", [-1.0, 0.0, 1.0])
def test_sparse_chains_give_what_dense_ones_do(rule, eta, monkeypatch):
    models_of_both_kinds = [problem(7), problem(8), stays(0.5, 2.0), stays(0.5, -2.0)]
    dense = [inference.average_reward(m, eta, rule) for m in models_of_both_kinds]
    monkeypatch.setattr(transient, "_DENSE", 0)
    for model, right in zip(models_of_both_kinds, dense, strict=True):
        found = inference.average_reward(model, eta, rule)
        assert found.gain == pytest.approx(right.gain, abs=1e-12)
        torch.testing.assert_close(found.V, right.V, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.states, right.states, rtol=0, atol=1e-10)


@given(seed=seeds)
def test_careful_elimination_agrees_with_a_dense_solve(seed):
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.ones(6), size=6)
    paid = rng.normal(size=6)
    sums = StateReduction(P[1:, 1:], P[1:, 0]).sums(paid[1:])
    # What is paid has both signs: sums are exact beside what they would be of absolute values.
    size = np.linalg.solve(np.eye(5) - P[1:, 1:], np.abs(paid[1:]))
    expected = np.linalg.solve(np.eye(5) - P[1:, 1:], paid[1:])
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-10 * size.max())
    chain = StateReduction(P, np.zeros(6))
    share = chain.visits() / chain.visits().sum()
    np.testing.assert_allclose(share @ P, share, atol=1e-14)
    gain, bias = chain.gain_and_bias(paid)
    assert gain == pytest.approx(share @ paid, abs=1e-13)
    np.testing.assert_allclose(gain + bias, paid + P @ bias, atol=1e-12)


def test_what_has_no_average():
    with pytest.raises(ValueError, match=r"horizon: .* infinite horizon, got 4"):
        inference.average_reward(models.ledge())
    with pytest.raises(ValueError, match=r"discount: with a discount of 0.9 every trajectory ends"):
        inference.average_reward(problem(0, discount=0.9))
    with pytest.raises(
        ValueError, match=r"2 sets of states .* one with state 0, another with state 1"
    ):
        inference.average_reward(
            models.tabular(torch.eye(2).unsqueeze(1), [[1.0], [-2.0]], horizon=None)
        )
    with pytest.raises(ValueError, match="one with state 3, another with state 4"):
        inference.average_reward(models.ledge(horizon=None))
    with pytest.raises(ValueError, match=r"p\(O\) = 0"):
        inference.average_reward(models.tabular([[[1.0]]], [[-math.inf]], horizon=None))
    with pytest.raises(ValueError, match="optimism: expected a finite number"):
        inference.average_reward(problem(0), math.inf)
    for rule in ("boltzmann", "planned"):
        with pytest.raises(ValueError, match=rf'rule: expected "soft" or "hard", got .{rule}.'):
            inference.average_reward(problem(0), 0.0, rule)
    with pytest.raises(ValueError, match="rule: expected"):
        inference.average_reward(problem(0), 0.0, "greedy")
    never = models.tabular(
        [[[1.0, 0.0]], [[0.5, 0.5]]], [[-math.inf], [1.0]], initial=[1.0, 0.0], horizon=None
    )
    with pytest.raises(ValueError, match=r"p\(O\) = 0"):
        inference.average_reward(never)

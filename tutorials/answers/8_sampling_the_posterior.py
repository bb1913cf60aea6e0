"""Answers to the exercises of notebook 8."""

import math

import numpy as np

from cai import inference, models


def answer_1():
    """x = 0.84, the short cut of η = 2, with a share of 0.57.

    With w = p(τ, O)/q(τ) the share is (Σ q w)²/Σ q w². Its numerator is p(O)² whatever x, and the
    denominator is smallest where q is proportional to the root of Σ p(τ, O)²/p(luck): that is the
    policy of η = 2, for which exp(2 r/α) is averaged over the dynamics.
    """
    ledge = models.ledge(horizon=3)
    x = np.linspace(0.001, 0.999, 999)
    drawn = np.stack([1 - x, x / 2, x / 2])  # the path; the ledge holds; it gives way
    joint = 0.5 * np.exp([-3.0, -1.0, -7.0])[:, None] * [[1.0], [0.5], [0.5]]
    weights = joint / drawn
    share = (drawn * weights).sum(0) ** 2 / (drawn * weights**2).sum(0)
    best = x[share.argmax()]
    print(f"largest share {share.max():.4f} at x = {best:.3f}")
    print(f"ceiling       {inference.effective_sample_ceiling(ledge):.4f}")
    for eta in (0.0, 1.0, 2.0):
        policy = inference.soft_values(ledge, optimism=eta).policy
        print(f"x of η = {eta:g}: {policy.log_probs[0, 0, 0].exp():.3f}")
    assert abs(share.max() - inference.effective_sample_ceiling(ledge)) < 1e-6
    assert abs(policy.log_probs[0, 0, 0].exp() - best) < 1e-3


def answer_2():
    """Nothing with one particle; with more it decides who survives, and the variance falls.

    The weight of step t is p_t ψ_{t+1}/ψ_t: over a whole trajectory all twists cancel, so that one
    particle has the weight of importance sampling. A twist acts through resampling alone.
    """
    lake = models.gym("FrozenLake-v1", horizon=20, temperature=0.2)
    exact = inference.posterior(lake)
    variances = {}
    for n in (1, 10, 100):
        plain, twisted = (
            [inference.smc(lake, n, seed=seed, **how).log_evidence for seed in range(30)]
            for how in ({}, {"twist": exact})
        )
        if n == 1:
            apart = np.abs(np.subtract(plain, twisted)).max()
            print(f"one particle: same evidence to rounding: {bool(apart < 1e-9)}")
            assert apart < 1e-9
            continue
        variances[n] = [np.exp(np.subtract(x, exact.log_evidence)).var() for x in (plain, twisted)]
        print(f"{n:3} particles: relative variance {variances[n][0]:.2f} without a twist,", end=" ")
        print(f"{variances[n][1]:.2f} with it")
    assert variances[100][1] < variances[100][0] / 2


def bound_of_several(x, K, fall):
    """E[log mean weight] of K walks that take the short cut with probability x."""
    chances = np.array([1 - x, x / 2, x / 2])
    weights = np.exp([-3.0, -1.0, fall]) * 0.5 / np.array([1 - x, x, x])
    total = 0.0
    for held in range(K + 1):
        for fell in range(K + 1 - held):
            n = np.array([K - held - fell, held, fell])
            ways = math.factorial(K) / np.prod([math.factorial(k) for k in n])
            total += ways * np.prod(chances**n) * np.log(n @ weights / K)
    return total


def answer_3():
    """Three for a ravine of 8. One of 16 takes four, and of 32 or 64 no more than five.

    The gambler loses only if *all* walks fall: with probability 2^-K, where all take the short cut,
    the log of the mean weight is about the return of a fall. So it is the depth divided by 2^K that
    counts, and K need only grow with the logarithm of the depth.
    """
    grid = np.linspace(0.005, 0.995, 199)
    needed = []
    for fall in (-9.0, -17.0, -33.0, -65.0):
        K = 1
        while grid[np.argmax([bound_of_several(x, K, fall) for x in grid])] <= 0.5:
            K += 1
        needed.append(K)
        print(f"return of a fall {fall:5.0f}: K = {K}")
    assert needed == [3, 4, 5, 5]

"""What a policy of maximum entropy is robust to, and what it is not; everything here is exact.

Run ``python -m benchmarks.robustness`` from the root of the repository; with ``--figure FILE`` it
also draws the three parts side by side. Returns are in reward units.

*Rewards.* For any policy, α ELBO = E[R] - α KL(policy‖prior) is the least return that it can get if
its rewards are changed to r - Δ with Σ_a p(a|s) exp(Δ/α) ≤ 1 in each state; it is reached at
Δ = α log π/p (Levine 2018, section 6; Ziebart 2010). The soft policy has the largest such floor.

*Dynamics.* Nothing of the kind holds where the dynamics are changed. On the cliff walk, planned
without slip, the soft policy loses less than the hard one, since it keeps away from the edge. On
the frozen lake, planned at a success rate of 0.8, it loses more. On random problems, whose
dynamics are mixed with others, it has the better return in a share that depends on the temperature
and the change.

*An adversary.* A policy with optimism η < 0 is planned against dynamics that turn against it, and
so ``inference.robust``, which finds the η of a budget of nats. An adversary of the policy alone
bends the dynamics to q(s'|s,a) ∝ p(s'|s,a) exp(-U(s')/λ) where U is what the policy gets from s'
on, until the expected KL over the trajectory is the budget.
"""

from __future__ import annotations

import argparse
import dataclasses
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

import cai
from benchmarks.attacks import attacked, other_weights, with_less
from cai import inference, models

_SLIPS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_RATES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
_TEMPERATURES = tuple(10 ** (k / 6) for k in range(-9, 5))  # of the plan
_BUDGETS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
_MIXED, _ALPHAS = (0.1, 0.3, 0.5, 1.0), (0.03, 0.1, 0.3, 1.0)
_ETAS = (0.0, -0.0375)


def cliff(slip: float, temperature: float = 1.0) -> cai.Table:
    """The cliff walk over 40 steps."""
    return cai.tabulate(
        models.gridworld("cliff", horizon=40, slip=slip, temperature=temperature)
    ).holding(program=None)


def lake(rate: float, temperature: float) -> cai.Table:
    """The frozen lake over 60 steps, at a success rate."""
    model = models.gym("FrozenLake-v1", success_rate=rate, horizon=60, temperature=temperature)
    return cai.tabulate(model)


def random_problem(seed: int, temperature: float = 0.7) -> cai.Table:
    """Six states, three actions, 20 steps; Dirichlet dynamics and normal rewards."""
    rng = np.random.default_rng(seed)
    P, reward = rng.dirichlet(np.full(6, 0.5), size=(6, 3)), rng.normal(size=(6, 3))
    return cai.tabulate(models.tabular(P, reward, horizon=20, temperature=temperature))


def gets(table: cai.Table, policy: cai.TabularPolicy) -> float:
    """The expected return."""
    return cai.evaluate(table, policy).expected_return


def floor(table: cai.Table, policy: cai.TabularPolicy) -> float:
    """α ELBO, reward units."""
    return float(table.temperature) * cai.evaluate(table, policy).elbo


# Changed rewards.


def changed_rewards(seeds: int) -> None:
    """Prints how exact the identity is, and the floors of policies on the cliff walk."""
    apart, margin = 0.0, math.inf
    for seed in range(seeds):
        table, rng = random_problem(seed), np.random.default_rng(seed)
        other = cai.TabularPolicy.from_log_probs(
            torch.as_tensor(rng.dirichlet(np.ones(3), size=(20, 6))).log()
        )
        for policy in (inference.soft_values(table).policy, other):
            least = floor(table, policy)
            apart = max(apart, abs(gets(with_less(table, policy.log_probs), policy) - least))
            for _ in range(20):
                changed = gets(with_less(table, other_weights(policy, rng)), policy)
                margin = min(margin, changed - least)
    print(f"Rewards: {seeds} random problems, two policies each")
    print(f"  |return at Δ = α log π/p  -  α ELBO|, largest     {apart:.1e}")
    print(f"  return at 20 other Δ  -  α ELBO, smallest        {margin:.2e}")
    print("Rewards: cliff walk without slip, α = 1")
    print("  planned at     return    floor = α ELBO")
    table = cliff(0.0)
    plans = {"hard": inference.soft_values(table, rule="hard").policy}
    plans |= {f"α = {a:g}": _planned(table, a) for a in (0.3, 1.0, 3.0)}
    for name, policy in plans.items():
        print(f"  {name:10} {gets(table, policy):10.2f} {floor(table, policy):12.2f}")


def _planned(table: cai.Table, temperature: float) -> cai.TabularPolicy:
    return inference.soft_values(dataclasses.replace(table, temperature=temperature)).policy


def _rewards_panel(axes: Axes) -> None:
    table, rng = cliff(0.0), np.random.default_rng(0)
    policies = [_planned(table, a) for a in _TEMPERATURES]
    for a, policy in zip(_TEMPERATURES, policies, strict=True):
        dots = [gets(with_less(table, other_weights(policy, rng)), policy) for _ in range(12)]
        label = "changed at random" if a == 1 else None
        axes.plot([a] * len(dots), dots, ".", color="#999999", markersize=3, label=label)
    kept = [gets(table, policy) for policy in policies]
    least = [floor(table, policy) for policy in policies]
    axes.plot(_TEMPERATURES, kept, "-", color="#222222", label="rewards as planned")
    axes.plot(_TEMPERATURES, least, "--", color="#6a4c93", label="changed for the worst: α ELBO")
    axes.plot(1.0, max(least), "o", color="#6a4c93", markersize=6)
    axes.set(
        xscale="log",
        ylim=(-45, 0),
        xlabel="temperature of the plan (reward per nat)",
        ylabel="return (reward units)",
        title="Rewards changed: the floor is α ELBO\n(cliff walk without slip, α = 1)",
    )
    axes.legend(frameon=False, fontsize=8, loc="upper right")


# Changed dynamics.


def on_the_cliff() -> dict[str, list[float]]:
    """The returns at each slip, planned without."""
    plans = {rule: inference.soft_values(cliff(0.0), rule=rule).policy for rule in ("hard", "soft")}
    return {name: [gets(cliff(slip), policy) for slip in _SLIPS] for name, policy in plans.items()}


def on_the_lake() -> dict[str, list[float]]:
    """The returns at each success rate, planned at 0.8."""
    plans = {"hard": inference.soft_values(lake(0.8, 1.0), rule="hard").policy}
    plans |= {f"α = {a}": inference.soft_values(lake(0.8, a)).policy for a in (0.001, 0.01)}
    return {
        name: [gets(lake(rate, 1.0), policy) for rate in _RATES] for name, policy in plans.items()
    }


def counts(problems: int) -> dict[tuple[float, float], tuple[int, int]]:
    """(temperature, share of other dynamics) -> two numbers of problems.

    Those in which the soft policy has the better return in the changed dynamics, and those in which
    it loses less by the change than the hard one.
    """
    found = {}
    for alpha in _ALPHAS:
        tables = [random_problem(seed, alpha) for seed in range(problems)]
        others = [random_problem(problems + seed).log_dynamics.exp() for seed in range(problems)]
        plans = [
            [inference.soft_values(x, rule=rule).policy for rule in ("soft", "hard")]
            for x in tables
        ]
        before = [[gets(x, p) for p in pair] for x, pair in zip(tables, plans, strict=True)]
        for share in _MIXED:
            better = less = 0
            for x, other, pair, (soft, hard) in zip(tables, others, plans, before, strict=True):
                mixed = (1 - share) * x.log_dynamics.exp() + share * other
                changed = dataclasses.replace(x, log_dynamics=mixed.log(), program=None)
                soft_now, hard_now = (gets(changed, p) for p in pair)
                better += soft_now > hard_now
                less += soft - soft_now < hard - hard_now
            found[alpha, share] = better, less
    return found


def changed_dynamics(problems: int) -> None:
    """Prints the returns in other dynamics than those of the plan."""
    _print_returns(
        "Dynamics: cliff walk, planned without slip, α = 1", "slip", _SLIPS, on_the_cliff()
    )
    title = "Dynamics: frozen lake, planned at a success rate of 0.8"
    _print_returns(title, "success rate", _RATES, on_the_lake())
    print(f"Dynamics: {problems} random problems, a share of other dynamics mixed in;")
    print("  problems in which soft has the better return / in which it loses less than hard")
    print("  share     " + "".join(f"{f'α = {a:g}':>12}" for a in _ALPHAS))
    found = counts(problems)
    for share in _MIXED:
        row = (f"{better} / {less}" for better, less in (found[a, share] for a in _ALPHAS))
        print(f"  {share:<10}" + "".join(f"{x:>12}" for x in row))


def _print_returns(
    title: str, what: str, at: tuple[float, ...], found: dict[str, list[float]]
) -> None:
    digits = 3 if max(map(abs, found["hard"])) < 2 else 1
    print(title)
    print(f"  {what:13}" + "".join(f"{x:>8g}" for x in at))
    for name, returns in found.items():
        print(f"  {name:13}" + "".join(f"{x:>8.{digits}f}" for x in returns))


def _dynamics_panel(axes: Axes) -> None:
    walk, ice = on_the_cliff(), on_the_lake()
    slips = [1 - rate for rate in _RATES]
    gain = (np.array(walk["soft"]) - walk["hard"]) / 100
    axes.plot(_SLIPS, gain, "o-", color="#2a9d8f", label="cliff, α = 1, planned at 0")
    for name, marker, line in (("α = 0.001", "s", "--"), ("α = 0.01", "^", ":")):
        loss = np.array(ice[name]) - ice["hard"]
        label = f"lake, {name}, planned at 0.2"
        axes.plot(slips, loss, marker + line, color="#6a4c93", label=label)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.set(
        ylim=(-0.25, 0.32),
        xlabel="probability of slipping when played",
        ylabel="return of soft minus hard policy\n(falls of 100, or goals)",
        title="Dynamics changed: better or worse\n(cliff walk, frozen lake)",
    )
    axes.legend(frameon=False, fontsize=8, loc="upper left")


# An adversary.


def adversary() -> dict[float, list[float]]:
    """η -> the worst returns within each budget, on the cliff walk planned at slip 0.1."""
    table = cliff(0.1, 0.3)
    plans = {eta: inference.soft_values(table, eta).policy for eta in _ETAS}
    return {
        eta: [attacked(table, policy, nats).expected_return for nats in _BUDGETS]
        for eta, policy in plans.items()
    }


def changed_against() -> None:
    """Prints worst returns, and the guarantee of ``robust`` beside what it is worth."""
    print("An adversary: cliff walk at slip 0.1, α = 0.3; the worst return within a budget")
    print("  nats       " + "".join(f"{x:>8g}" for x in _BUDGETS))
    for eta, returns in adversary().items():
        print(f"  η = {eta:<7g}" + "".join(f"{x:>8.1f}" for x in returns))
    table = cliff(0.1, 0.3)
    nominal = inference.soft_values(table).policy
    print("  worst α ELBO within   guaranteed by robust     it gets    η = 0 gets")
    for nats in (0.1, 0.5, 1.0):
        found = inference.robust(table, nats)
        worst = (0.3 * attacked(table, x, nats, True).elbo for x in (found.policy, nominal))
        both = "".join(f"{x:>12.3f}" for x in worst)
        print(f"  {nats:g} nats, η = {found.optimism:<8.4f} {0.3 * found.value:16.3f} {both}")
    print("  and where the slip is another:" + "".join(f"{x:>7g}" for x in _SLIPS))
    for eta in _ETAS:
        policy = inference.soft_values(table, eta).policy
        row = "".join(f"{gets(cliff(slip), policy):>7.1f}" for slip in _SLIPS)
        print(f"  η = {eta:<26g}" + row)


def _adversary_panel(axes: Axes) -> None:
    looks = (("o-", "#222222"), ("D--", "#e9a03b"))
    for (eta, returns), (style, colour) in zip(adversary().items(), looks, strict=True):
        axes.plot(
            _BUDGETS,
            returns,
            style,
            color=colour,
            label=f"η = {eta:g}".replace("-", "−"),
            markersize=4,
        )
    axes.set(
        ylim=(-108, 0),
        xlabel="budget of the adversary (nats)",
        ylabel="worst return (reward units)",
        title="Dynamics changed against it: η < 0\n(cliff walk planned at slip 0.1, α = 0.3)",
    )
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def main() -> None:
    """Prints the tables, and draws the figure if there is a file for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100, help="random problems (100)")
    parser.add_argument("--figure", help="a file for the figure")
    given = parser.parse_args()
    torch.set_num_threads(1)
    changed_rewards(given.problems)
    changed_dynamics(given.problems)
    changed_against()
    if given.figure:
        figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
        for draw, axes in zip(
            (_rewards_panel, _dynamics_panel, _adversary_panel), panels, strict=True
        ):
            draw(axes)
        figure.savefig(given.figure, dpi=150)


if __name__ == "__main__":
    main()

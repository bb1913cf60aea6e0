"""The minimax policy against an adversary who may change start and dynamics within a KL budget."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from functools import cache

from scipy.optimize import brentq

from cai import checks
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.solutions.solution import Solution, solved
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_TINY = 1e-280  # multipliers below this count as zero, η = -inf
_ROUNDING = 1e-12  # relative accuracy of the bound, the limit of the search


@dataclass(frozen=True, eq=False)
class RobustSolution:
    """A robust policy with its guaranteed value.

    Attributes:
        solution: the soft Bellman solution at some η ≤ 0; its own chain is the worst case.
        budget: ρ, nats: KL of start and dynamics to the true ones, over the whole trajectory.
        value: (), nats: the guarantee: no adversary within the budget can reduce the policy's
            E[Σ rewards/α - Σ KL(policy‖prior)] below this.

    >>> from cai import inference, models
    >>> found = inference.robust(models.ledge(), budget=0.1)
    >>> found.optimism < 0, found.policy.log_probs.shape
    (True, torch.Size([4, 5, 2]))
    """

    solution: Solution
    budget: float
    value: float

    @property
    def optimism(self) -> float:
        """η ≤ 0; the smaller the budget, the closer to zero."""
        return self.solution.optimism

    @property
    def policy(self) -> TabularPolicy:
        """The policy of the solution."""
        return self.solution.policy

    def __repr__(self) -> str:
        return (
            f"RobustSolution(budget={self.budget:g} nats, optimism={self.optimism:.6g}, "
            f"value={self.value:.6g} nats)"
        )


def robust(
    model: TrajectoryModel | Table, budget: float, *, tolerance: float = 1e-3
) -> RobustSolution:
    r"""The policy with the best worst case over all start and dynamics within a budget of nats.

        max_π min_q E_q[Σ rewards/α - Σ KL(π‖prior)],   KL(q(s_0)‖p) + E_q Σ_t KL(q(s'|s,a)‖p) ≤ ρ

    where q replaces start and dynamics, termination included, and may depend on the past; the
    expectation is over trajectories of q and π. The budget is for the *whole trajectory*, not for
    each transition, and the objective is the soft one, return/α minus the KL of the actions. The
    problem of the adversary of a fixed policy has a dual with one multiplier λ, and so

        max_π min_q = max_{λ ≥ 0} bound_{-1/λ} - λρ

    whose maximum lies where the KL of the dynamics of the solution at η = -1/λ equals ρ. A policy
    that avoids transitions open to the adversary reduces that KL again, so that several η may match
    the budget; each guarantees bound_η + ρ/η and only the best of them is minimax. The search is
    over all η: it ends when the value cannot be better anywhere by more than ``tolerance`` times
    the price of robustness, bound_0 - value, and then solves KL = ρ to rounding errors.

    Args:
        model: a model with finitely many states and actions and a finite horizon, or its table.
        budget: ρ ≥ 0 in nats, or inf. Zero gives η = 0; more than the adversary can use, η = -∞.
        tolerance: accuracy of the search for the best η, relative to the price of robustness.

    Returns:
        A :class:`RobustSolution`: the policy, and its guaranteed value in nats.

    Raises:
        ValueError: if the budget is negative or not a number, the tolerance is not positive, the
            horizon is infinite, or the evidence is zero.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> found = inference.robust(model, budget=0.1)
    >>> found.value <= inference.soft_values(model).elbo
    True
    """
    nats, advice = "a number of nats ≥ 0", "inf is the worst case"
    checks.check_real("budget", budget, lambda rho: rho >= 0, nats, advice)
    checks.check_positive("tolerance", tolerance)
    table = tabulate(model)
    checks.finite_horizon(table, "robust")
    nominal = solved(table, 0.0)
    if budget == 0 or nominal.bound == -math.inf:
        return RobustSolution(nominal, float(budget), nominal.bound)
    paranoid = solved(table, -math.inf)
    most = nominal.bound - paranoid.bound
    if math.isinf(budget) or most <= max(_rounding(nominal.bound), _TINY * budget):
        return RobustSolution(paranoid, float(budget), paranoid.bound)
    low, best, high = _search(table, float(budget), nominal.bound, paranoid.bound, tolerance)
    if best == 0:
        return RobustSolution(paranoid, float(budget), paranoid.bound)
    solution = solved(table, -1 / _stationary(table, float(budget), low, best, high))
    return RobustSolution(solution, float(budget), solution.bound + budget / solution.optimism)


def _rounding(bound: float) -> float:
    return _ROUNDING * max(1.0, abs(bound))


def _search(
    table: Table, rho: float, nominal: float, paranoid: float, tolerance: float
) -> tuple[float, float, float]:
    """The λ of the highest h(λ) = g(λ) - λρ, g(λ) = bound_{-1/λ}, between its two neighbours.

    g grows with λ, so that between two points h is at most g(right) - ρ left: the interval with the
    highest such bound is split until none can beat the best point by more than the tolerance.
    """
    g = {0.0: paranoid}

    def h(multiplier: float) -> float:
        return g[multiplier] - rho * multiplier

    far = 2 * (nominal - paranoid) / rho  # beyond half of this, h < h(0)
    g[far] = nominal
    best, intervals = 0.0, [(-nominal, 0.0, far)]
    while intervals:
        ceiling, left, right = heapq.heappop(intervals)
        # No tolerance next to λ = 0, so that η = -∞ is the answer only if it is the best.
        slack = _rounding(nominal) + (tolerance * (nominal - h(best)) if left else 0.0)
        if -ceiling <= h(best) + slack:
            continue
        middle = math.sqrt(left * right) if left else right / 4
        g[middle] = solved(table, -1 / middle).bound
        best = max(best, middle, key=h)
        heapq.heappush(intervals, (rho * left - g[middle], left, middle))
        heapq.heappush(intervals, (rho * middle - g[right], middle, right))
    if h(best) <= paranoid + _rounding(nominal):
        best = 0.0
    points = sorted(g)
    i = points.index(best)
    return points[max(i - 1, 0)], best, points[min(i + 1, len(points) - 1)]


def _stationary(table: Table, rho: float, low: float, best: float, high: float) -> float:
    """The λ between low and high with KL = ρ and h(λ) at least h(best), since dh/dλ = KL - ρ.

    The search goes uphill from the best point towards a lower one: either the slope changes sign in
    between, or a middle point is higher, or it is lower and replaces the far one.
    """

    @cache
    def solve(multiplier: float) -> tuple[float, float]:
        solution = solved(table, -1 / multiplier)
        return solution.bound - rho * multiplier, solution.total_tilt - rho

    def slope(log_multiplier: float) -> float:
        return solve(math.exp(log_multiplier))[1]

    upwards = solve(best)[1] > 0
    near, far = best, high if upwards else low
    while far == 0 or (solve(far)[1] > 0) == upwards:
        middle = math.sqrt(near * far) or near / 4
        if abs(middle - near) <= _ROUNDING * near:
            return near
        height, uphill = solve(middle)
        if (uphill > 0) == upwards and height >= solve(near)[0]:
            near = middle
        else:
            far = middle
    ends = sorted((math.log(near), math.log(far)))
    return math.exp(brentq(slope, *ends, xtol=1e-14, rtol=1e-14))

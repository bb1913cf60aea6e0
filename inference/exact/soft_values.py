"""The soft Bellman recursion: the best policy, at any optimism about the dynamics."""

from __future__ import annotations

from typing import Literal, overload

from cai import checks
from cai.evaluation.problem import as_problem
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.inference.exact.gaussian_values import gaussian_values
from cai.inference.infinite.stationary_values import stationary
from cai.program.trajectory import TrajectoryModel
from cai.solutions.checkpointed import CheckpointedSolution, checkpointed
from cai.solutions.solution import Solution, check_possible, solved
from cai.solutions.stationary import Stationary
from cai.sweeps import sweeps
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import enumerated


@overload
def soft_values(  # type: ignore[overload-overlap]
    model: LinearGaussian, optimism: float = 0.0, rule: bellman.Rule = "soft"
) -> GaussianSolution: ...


@overload
def soft_values(
    model: TrajectoryModel | Table,
    optimism: float = 0.0,
    rule: bellman.Rule = "soft",
    recompute: Literal[False] = False,
) -> Solution | Stationary: ...


@overload
def soft_values(
    model: TrajectoryModel | Table,
    optimism: float = 0.0,
    rule: bellman.Rule = "soft",
    *,
    recompute: Literal[True],
) -> CheckpointedSolution: ...


def soft_values(
    model: TrajectoryModel | Table,
    optimism: float = 0.0,
    rule: bellman.Rule = "soft",
    recompute: bool = False,
) -> Solution | Stationary | GaussianSolution | CheckpointedSolution:
    r"""Values, policy and bound of a discrete model at optimism η (Levine 2018, eqs. 7, 15).

        Q_t(s,a) = r + (α/η) log E_{s'|s,a}[ exp(η r⁺/α) ( γ exp(η V_{t+1}(s')/α) + 1 - γ ) ]

        rule "soft":       V = α log Σ_a p(a|s) exp(Q/α),   π(a|s) ∝ p(a|s) exp(Q/α)
        rule "hard":       V = max_a Q,                     π: the prior among the best actions
        rule "boltzmann":  V = E_π[Q],                      π(a|s) ∝ p(a|s) exp(Q/α)
        rule "planned":    V = max_a Q,                     π(a|s) ∝ p(a|s) exp(Q/α)

    The soft rule maximises over the policy and, for η > 0, over the dynamics and the initial state
    q (for η < 0 it minimises over q) E_q[Σ rewards/α - Σ KL(policy‖prior)] - KL(q‖p)/η: each nat of
    KL of the dynamics costs 1/η nats. The hard rule does the same without the KL of the policy: it
    is the limit α → 0 with η/α fixed. The Boltzmann rule does not optimise anything: it is the
    value of an agent with noisy actions, without a cost or a reward for the noise. The planned rule
    has the values of the hard one, and errs in each action as if it were the last to err.

    ==========  ======  ======================================================================
    rule        η       what it is
    ==========  ======  ======================================================================
    soft        1       the exact posterior p(τ|O), which conditions the dynamics too: maximum-
                        entropy trajectories (Ziebart 2008, Toussaint 2009; Levine's eq. 7)
    soft        0       the dynamics stay as they are: maximum causal entropy (Ziebart 2010), soft
                        Q-learning, the best ELBO (Levine's eq. 15)
    soft        > 0     in between, or beyond: optimism at a price of 1/η per nat
    soft        < 0     nature plays against the agent, at a price: risk-averse, robust
    hard        0       value iteration (Bellman 1957); α and the prior's weights do not matter
    hard        ≠ 0     risk-sensitive control of exp(η return/α) (Howard and Matheson 1972;
                        Jacobson's LEQG 1973): averse below zero, seeking above
    boltzmann   0       the softmax agent of agentmodels.org; Boltzmann exploration
                        (compare Levine's section 5.2), without the entropy bonus
    boltzmann   ≠ 0     that agent, in dynamics tilted by its own values; not in the literature
    planned     0       Boltzmann in the optimal Q*: the demonstrator of Ramachandran and Amir
                        (2007) and of Neu and Szepesvári (2007)
    planned     ≠ 0     the same in Q of the risk-sensitive agent
    any         ±∞      the best, or the worst, possible outcome happens; hard at -∞ is
                        minimax (Heger 1994), and at +∞ a shortest path
    ==========  ======  ======================================================================

    At ±∞ values, policy and bound are the limits of those at η → ±∞. Tied outcomes keep their true
    proportions; in the limit η → ±∞ these would also depend on the probability of the luck that is
    needed afterwards.

    Args:
        model: a model with finitely many states and actions, or its table; or a linear-Gaussian
            model, solved by its Riccati recursion. With an infinite horizon the solution is
            stationary, a :class:`cai.Stationary` without an axis of steps, whose ``error`` is a
            certified bound of |V - its true value|. It is the limit of long horizons, also for a
            linear-Gaussian model; if a state grows there at no cost, control engineers may want
            ``inference.stabilising_values`` instead.
        optimism: η, any real number or ±inf.
        rule: how actions are chosen, which defines the values. The prior defines which actions are
            allowed, also under the hard rule.
        recompute: whether to keep the values of every √T-th step only and recompute the others, for
            horizons whose values do not fit into memory.

    Returns:
        The solution; with ``recompute`` its bound, returns and visits, any step ``at(t)``, and a
        ``walk()`` through all of them.

    Raises:
        ValueError: if optimism is not a number, the rule is not one of the four, or the
            evidence is zero; for η ≤ 0 a bound of -inf is an answer as long as log p(O) is finite.
            For an infinite horizon, if values are not finite (a discount is no guarantee unless
            η = 0), naming the critical η or the spectral radius. For a linear-Gaussian model, if a
            value is infinite at η (naming the last η at which none is), the discount is below one
            at η ≠ 0, or the rule is not soft. With ``recompute``, if the rule is not soft, η is not
            finite, or dynamics or arrival rewards depend on the step.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> cautious, hopeful = inference.soft_values(model), inference.soft_values(model, optimism=1.0)
    >>> cautious.elbo < hopeful.bound
    True
    >>> stationary = inference.soft_values(models.ledge(horizon=None, discount=0.9))
    >>> stationary.V.shape, stationary.error < 1e-9
    (torch.Size([5]), True)
    """
    eta, rule = checks.check_optimism(optimism), bellman.check_rule(rule)
    if recompute not in (True, False):
        advice = "True keeps few values and recomputes the others"
        checks.refuse("recompute", "True or False", repr(recompute), advice)
    problem = as_problem(model)
    if problem.gaussian is not None:
        if rule != "soft":
            checks.refuse(
                "rule",
                '"soft" for a linear-Gaussian model',
                repr(rule),
                "with a flat action prior the hard policy is the mean of the soft one",
            )
        return gaussian_values(problem.gaussian, eta)
    table = enumerated(model)
    if table.horizon is None:
        if recompute:
            checks.refuse(
                "recompute",
                "a finite horizon",
                "an infinite one",
                "leave it out: stationary values take no more memory than one step",
            )
        return stationary(table, eta, rule)
    if recompute:
        if rule != "soft" or not sweeps.by_products(table, eta):
            if own := [x for x in ("log_dynamics", "arrival_reward") if x in table.by_step]:
                came = f"one whose {' and '.join(own)} depend on it"
                advice = "leave recompute out, or put the step into the state"
                checks.refuse("recompute", "dynamics that are the same at every step", came, advice)
            checks.refuse(
                "recompute",
                "the soft rule and an optimism that is 0 or of a size from 1e-200 to 1e6",
                f"rule {rule!r} at optimism {eta:g}",
                "leave recompute out, or take a shorter horizon",
            )
        kept = checkpointed(table, eta)
        check_possible(table, eta, kept.bound)
        return kept
    return solved(table, eta, rule)

"""Bounds of the log evidence from the trajectories of any guide."""

from __future__ import annotations

from cai import checks
from cai.evaluation import bracket, importance_weights
from cai.evaluation.bracket import EvidenceBracket
from cai.numerics.exclusive import seeded
from cai.program.interfaces import Policy, ValueFunction
from cai.program.trajectory import TrajectoryModel


def evidence_bracket(
    model: TrajectoryModel,
    policy: Policy,
    *,
    samples: int = 10_000,
    group_size: int = 100,
    value: ValueFunction | None = None,
    seed: int = 0,
) -> EvidenceBracket:
    """A lower bound of log p(O), and an upper bound or an estimate, by importance weights.

    With w = p(τ,O)/q(τ) and K = group_size, E[log (1/K) Σ_k w_k] ≤ log p(O): the ELBO at K = 1, and
    the closer the larger K (Burda et al. 2016). It is meant for evaluation. As an objective for
    planning it would be optimistic, since it rewards the best of K trajectories.

    Args:
        model: any model with a finite horizon, discrete or continuous.
        policy: (t, s) -> q(a_t|s_t), possibly with a memory or latents; the better it is, the
            closer the bracket. If it never takes some actions of the prior, the lower bound is
            looser and the upper estimate too low.
        samples: how many trajectories.
        group_size: K, at most half of them.
        value: (t, s) -> V_t(s) in reward units, nowhere too low, which makes the upper end a bound:
            V_T ≥ r_T and V_t(s) ≥ α log E[exp((r + r⁺)/α)(γ exp(V_{t+1}/α) + 1 - γ)], a ~ prior.
            That holds for the value at optimism 1 of a model with the same prior and dynamics and
            higher rewards, and for zero if no reward is positive. It is tested along some
            trajectories. If not given, the upper end is an estimate.
        seed: seed of the simulation.

    Returns:
        A :class:`cai.EvidenceBracket`, which prints itself as a sentence.

    Raises:
        ValueError: if the horizon is infinite, a number is out of range, the policy does not
            fit the model, or the value function fails the test.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> prior = lambda t, s: model.prior(s)
    >>> value = inference.soft_values(model, 2.0).V  # too high everywhere, as a bound must be
    >>> found = inference.evidence_bracket(model, prior, value=lambda t, s: value[t, s])
    >>> found.lower <= inference.posterior(model).log_evidence + 4 * found.lower_stderr
    True
    """
    checks.check_model(model, sampled=True)
    checks.finite_horizon(model, "a bracket")
    checks.check_seed(seed)
    _check_groups(samples, group_size)
    with seeded(seed):
        paths = model.simulate(policy, samples)
        above = None if value is None else bracket.from_above(model, value, paths)
    log_w = importance_weights.scores(model, policy, paths).log_weights
    return bracket.bracket(log_w, group_size, above)


def _check_groups(samples: int, group_size: int) -> None:
    """Raises ValueError unless there are at least two groups of trajectories."""
    checks.check_count("samples", samples)
    checks.check_count("group_size", group_size)
    if 2 * group_size > samples:
        checks.refuse(
            "group_size",
            f"at most half of the {samples} samples",
            str(group_size),
            "two groups are the least that has a standard error",
        )

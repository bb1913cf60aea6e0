"""A temperature that a learner adapts until its policy pays a given number of nats a step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cai import checks


@dataclass(frozen=True)
class AutomaticTemperature:
    """α such that E KL(π(·|s) ‖ p(·|s)) is so many nats a step (Haarnoja et al. 2018, section 5).

        log α ← log α + ρ (KL - target)

    after each step of the learner, with the mean KL in the states that its copies are in. A policy
    that pays too much is made dearer. In problems of one step, and there alone, the α that it
    finds is that of ``divergence_budget``: a learner's mean is over the states that it visits,
    with equal weights, and off policy it is that of another policy's states.

    A target in nats is the same however actions are parametrised: the entropy of A actions is log A
    minus the KL from a uniform prior. The customary entropy of -d on the box [-1, 1]^d is 1.69 d.

    Args:
        nats: the target, above zero and below what the greedy policy pays, log A for a uniform
            prior over A actions: towards these α grows, or falls to zero, without end.
        rate: ρ.

    Raises:
        ValueError: if a number is not above zero; from the learner, if no policy pays so much.

    >>> from cai import inference, models
    >>> bandit = models.tabular([[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1)
    >>> found = inference.soft_q(
    ...     bandit,
    ...     temperature=inference.AutomaticTemperature(0.1),
    ...     steps=60_000,
    ...     exploration=0.0,
    ...     progress=False,
    ... )
    >>> exact = inference.divergence_budget(bandit, 0.1)
    >>> bool(abs(found.temperature / exact.temperature - 1) < 0.05)
    True
    """

    nats: float
    rate: float = 0.01

    def __post_init__(self) -> None:
        """Checks the numbers."""
        checks.check_positive("nats", self.nats)
        checks.check_positive("rate", self.rate)

    def check(self, most: float) -> None:
        """Raises ValueError if no policy pays so much.

        Args:
            most: max -log p(a|s), nats; infinite if actions are not finitely many.
        """
        if self.nats >= most:
            expected = f"less than {most:.4g}, what a policy pays that is certain of an action"
            checks.refuse("nats", expected, f"{self.nats:g}", "α would fall to zero without end")

    def after(self, alpha: float, divergence: float) -> float:
        """α after a step of the learner, reward units per nat.

        Args:
            alpha: α before it.
            divergence: the mean KL of the policy from the action prior, nats; NaN if the policy has
                not acted yet, which leaves α as it is.
        """
        if math.isnan(divergence):
            return alpha
        return alpha * math.exp(self.rate * (divergence - self.nats))

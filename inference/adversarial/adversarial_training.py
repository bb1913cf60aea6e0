"""How generator and discriminator are trained from transitions."""

from __future__ import annotations

from dataclasses import dataclass

from cai import checks, one_line


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining:
    """The settings of learners, for ``adversarial_reward(…, training=…)``.

    Attributes:
        steps: the number of transitions of all copies together.
        num_envs: how many copies are stepped side by side.
        hidden: widths of the hidden layers of all networks.
        replay: how many of the latest transitions the generator remembers. Their rewards are those
            of the discriminator at the time when they are drawn.
        recent: how many of the latest transitions the discriminator sees as the generator's. Few
            are noisy; many are those of past generators, with another policy than the present one.
        batch: how many transitions are drawn for a step of either.
        updates: how many steps of Adam of the generator follow a step of all copies.
        discriminator_updates: the same of the discriminator.
        warm_up: how many transitions are taken by the action prior, before anything is learnt.
        lag: in (0, 1), the share by which the lagging networks of the generator move.
        learning_rate: of the generator's Adam.
        discriminator_rate: of the discriminator's Adam. It should be the slower one: a generator
            that lags behind it runs in circles, from episodes too short to ones too long.
        exploration: the share of actions of "soft_q" that are drawn from the action prior.
        seed: of all random numbers.

    Raises:
        ValueError: if one is out of range.

    >>> from cai import inference
    >>> inference.AdversarialTraining(steps=20_000).batch
    256
    """

    steps: int = 50_000
    num_envs: int = 8
    hidden: tuple[int, ...] = (64, 64)
    replay: int = 20_000
    recent: int = 4_000
    batch: int = 256
    updates: int = 1
    discriminator_updates: int = 1
    warm_up: int = 1_000
    lag: float = 0.02
    learning_rate: float = 1e-3
    discriminator_rate: float = 3e-4
    exploration: float = 0.0
    seed: int = 0

    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "replay", "recent", "batch", "warm_up"):
            checks.check_count(name, getattr(self, name))
        for name in ("updates", "discriminator_updates"):
            checks.check_count(name, getattr(self, name))
        checks.check_widths("hidden", self.hidden)
        checks.check_real("lag", self.lag, lambda x: 0 < x < 1, "between 0 and 1", "such as 0.02")
        checks.check_positive("learning_rate", self.learning_rate)
        checks.check_positive("discriminator_rate", self.discriminator_rate)
        checks.check_share("exploration", self.exploration, "0 for none")
        checks.check_seed(self.seed)
        if self.warm_up >= self.steps:
            advice = "take more steps, or a shorter warm_up"
            expected = f"fewer transitions than steps, {self.steps}"
            checks.refuse("warm_up", expected, str(self.warm_up), advice)

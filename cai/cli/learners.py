"""What the command line trains and fits: light, since the help lists them."""

from __future__ import annotations

from typing import NamedTuple


class LearnerKind(NamedTuple):
    """A learner of ``cai.inference``.

    Attributes:
        function: its name there.
        trains: what it trains, in words.
        policy: whether it is given a policy to train.
        discrete: whether it takes finitely many actions.
        continuous: whether it takes actions on a continuum.
    """

    function: str
    trains: str
    policy: bool
    discrete: bool
    continuous: bool

    def actions(self) -> str:
        """The actions that it takes, in words."""
        kinds = {"finitely many": self.discrete, "continuous": self.continuous}
        return " or ".join(name for name, takes in kinds.items() if takes)


LEARNERS = {
    "soft-q": LearnerKind("soft_q", "Q, a table or a network", False, True, False),
    "sac": LearnerKind("sac", "a policy and two critics", False, True, True),
    "stein-soft-q": LearnerKind("stein_soft_q", "Q and a sampler", False, False, True),
    "actor-critic": LearnerKind("actor_critic", "a policy, Q and V", False, True, True),
    "policy-gradient": LearnerKind("policy_gradient", "a policy and a critic", True, True, True),
    "path-consistency": LearnerKind("path_consistency", "a policy and values", True, True, True),
}


def described() -> str:
    """The learners and the actions that they take, a line each."""
    lines = [f"  {name:18}{x.trains}; actions: {x.actions()}" for name, x in LEARNERS.items()]
    return "\n".join(["learners:", *lines])


class MethodKind(NamedTuple):
    """How a reward is found from demonstrations.

    Attributes:
        function: its name in ``cai.inference``, of (model, demonstrations, reward).
        finds: what it finds, in words.
    """

    function: str
    finds: str


METHODS = {
    "likelihood": MethodKind("fit_reward", "the most probable weights, with errors"),
    "max_margin": MethodKind("max_margin", "weights of the largest margin"),
    "feature_matching": MethodKind("feature_matching", "a mixture of policies with the features"),
    "sampled": MethodKind("sampled_reward", "weights from rollouts, guided cost learning"),
    "adversarial": MethodKind("adversarial_reward", "weights by a discriminator, AIRL"),
}


def methods() -> str:
    """The methods and what they find, a line each."""
    lines = [f"  {name:18}{x.finds}; inference.{x.function}" for name, x in METHODS.items()]
    return "\n".join(["methods:", *lines])

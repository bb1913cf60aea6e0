"""Pyro handlers around a program: what it may draw, and how."""

from __future__ import annotations

from typing import Any, NoReturn

from pyro.poutine.messenger import Messenger

from cai.program import sites


class DrawsSites(ValueError):
    """A policy drew a site that it must not draw."""


class NoSites(Messenger):
    """Refuses the sites that a policy must not draw: the model's, and latents that none scores.

    Args:
        latents: whether it may draw latents, since it has a ``reverse``.
    """

    def __init__(self, latents: bool = False) -> None:
        super().__init__()
        self.latents = latents

    def _pyro_sample(self, msg: Any) -> None:
        if sites.of_the_program(msg["name"]):
            refuse_site(msg["name"])
        if not self.latents:
            raise DrawsSites(
                "policy: expected a distribution of actions without sites of its own, got one that "
                f"draws the site {msg['name']}; a policy with latents draws them in start() and "
                "scores them in reverse(states, actions, alive), see cai.LatentPolicy"
            )


def refuse_site(name: str) -> NoReturn:
    """Raises DrawsSites for a site that a policy draws though it is the model's."""
    raise DrawsSites(
        f"policy, site {name}: expected the model alone to draw it, since a guide keeps the true "
        "dynamics, got another draw; return the distribution of the action and leave the drawing "
        "to model.rollout(policy), give latents other names, and for a guide that bends the "
        "dynamics take cai.FreeDynamics"
    )

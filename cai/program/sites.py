"""The names of sites as in the Pyro program: s_0, a_0, s_1, …, alive_1, …, and t3/slip."""

from __future__ import annotations

import re
from typing import NamedTuple

from cai.checks import refuse

_OF_THE_PROGRAM = re.compile(r"(s|a|o|alive)_\d+$|t\d+/")


def of_the_program(name: str) -> bool:
    """Whether a site belongs to the trajectory, rather than being a latent of a policy."""
    return _OF_THE_PROGRAM.match(name) is not None


def of_the_policy(name: str) -> bool:
    """Whether a site is scored by the policy: an action, or a latent of the policy."""
    return name.startswith("a_") or not of_the_program(name)


class Site(NamedTuple):
    """A site of the program: its kind, "s", "a", "alive" or "latent", and its step.

    Latents of the dynamics have a name, the one used in the dynamics.
    """

    kind: str
    t: int
    name: str = ""


def parse(where: str, name: str, T: int, discount: float, latents: bool = False) -> Site:
    """The site of a name such as "s_3", or "t3/slip".

    Args:
        where: the argument to name in an error.
        name: the name of the site.
        T: how many steps there are.
        discount: γ; sites ``alive_t`` exist if it is below one.
        latents: whether latents of the dynamics may be named. Their existence is not checked.

    Raises:
        ValueError: for a site that the program does not have, or that may not be named here.
    """
    last = {"s": range(T + 1), "a": range(T)}
    if discount < 1:
        last["alive"] = range(1, T + 1)
    inside = re.fullmatch(r"t(0|[1-9]\d*)/(.+)", name) if isinstance(name, str) else None
    if latents and inside is not None and int(inside[1]) < T:
        return Site("latent", int(inside[1]), inside[2])
    found = re.fullmatch(r"(s|a|alive)_(0|[1-9]\d*)", name) if isinstance(name, str) else None
    if found is not None:
        site = Site(found[1], int(found[2]))
        if site.t in last.get(site.kind, ()):
            return site
    known = ", ".join(f"{kind}_{steps[0]} … {kind}_{steps[-1]}" for kind, steps in last.items())
    refuse(where, f"one of the sites {known}", repr(name), _advice(name))


def _advice(name: object) -> str:
    if isinstance(name, str) and name.startswith("o_"):
        return "choose the observed o_t by optimal=, a mask of T+1 booleans"
    if isinstance(name, str) and name.startswith("alive_"):
        return "alive_1, … exist only if the discount is below 1"
    if isinstance(name, str) and "/" in name:
        return "latents of the dynamics, at steps t < T, can be queried but not observed"
    return "sites have the names of the program, a letter and the step"

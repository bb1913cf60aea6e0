"""The names of sites as in the Pyro program: s_0, a_0, s_1, …, alive_1, …, and t3/slip."""

from __future__ import annotations

import re
from typing import NamedTuple

from cai.checks import refuse

_OF_THE_PROGRAM = re.compile(r"(s|a|o|alive)_\d+$|t\d+/")


def of_the_program(name: str) -> bool:
    """Whether a site is one of a trajectory's, not a latent that a policy draws."""
    return _OF_THE_PROGRAM.match(name) is not None


def of_the_policy(name: str) -> bool:
    """Whether what a policy says scores a site: an action, or a latent of the policy."""
    return name.startswith("a_") or not of_the_program(name)


class Site(NamedTuple):
    """A site of the program: its kind, "s", "a", "alive" or "latent", and its step.

    Latents of the dynamics' own have a name, as the dynamics call them.
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
        discount: γ; sites ``alive_t`` are where it is below one.
        latents: whether latents of the dynamics' own may be named. That they exist is not checked.

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
        return "which o_t are observed is said by optimal=, a mask of T+1 booleans"
    if isinstance(name, str) and name.startswith("alive_"):
        return "there are alive_1, …, where the discount is below 1, and only there"
    if isinstance(name, str) and "/" in name:
        return "what the dynamics sample within a step t < T can be asked for, but not observed"
    return "names are those of the program, a letter and the step"

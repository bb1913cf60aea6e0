"""The names of sites as in the Pyro program: s_0, a_0, s_1, …, and alive_1, … with a discount."""

from __future__ import annotations

import re
from typing import NamedTuple

from cai.table import Table


class Site(NamedTuple):
    """A site of the program: its kind, "s", "a" or "alive", and its step."""

    kind: str
    t: int


def parse(where: str, name: str, table: Table) -> Site:
    """The site of a name such as "s_3".

    Args:
        where: the argument to name in an error.
        name: the name of the site.
        table: the problem; says how many steps there are, and whether there is a discount.

    Raises:
        ValueError: for a site that the program does not have, or that is no state, action or life.
    """
    T = table.steps
    last = {"s": range(T + 1), "a": range(T)}
    if table.discount < 1:
        last["alive"] = range(1, T + 1)
    found = re.fullmatch(r"(s|a|alive)_(0|[1-9]\d*)", name) if isinstance(name, str) else None
    if found is not None:
        site = Site(found[1], int(found[2]))
        if site.t in last.get(site.kind, ()):
            return site
    known = ", ".join(f"{kind}_{steps[0]} … {kind}_{steps[-1]}" for kind, steps in last.items())
    raise ValueError(f"{where}: expected one of the sites {known}, got {name!r}; {_advice(name)}")


def _advice(name: object) -> str:
    if isinstance(name, str) and name.startswith("o_"):
        return "which o_t are observed is said by optimal=, a mask of T+1 booleans"
    if isinstance(name, str) and name.startswith("alive_"):
        return "there are alive_1, …, where the discount is below 1, and only there"
    return "names are those of the program, a letter and the step"

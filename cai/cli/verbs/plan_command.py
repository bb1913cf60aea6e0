"""The command ``plan``: the most probable trajectory of a finite model, given optimality."""

from __future__ import annotations

import argparse
import math
from typing import Any

from cai import cli, inference
from cai.cli import shared_options
from cai.cli.failure import Mistake
from cai.evaluation.spelling import aligned

_TITLES = ("step", "state", "action", "reward", "p(next state)")
_FILES = ("plan.json", "plan.csv")


def add_to(commands: Any) -> None:
    """Adds the command's options."""
    plan = commands.add_parser(
        "plan",
        help="the most probable trajectory",
        description="The most probable trajectory given optimality, argmax p(tau, O). In "
        "stochastic dynamics it chooses luck as well as actions. plan.csv is read by cai irl.",
    )
    shared_options.add_model(plan)
    plan.add_argument(
        "--start", metavar="S", help="the initial state, its number or name (default: the best)"
    )
    shared_options.add_json(plan, "a table")


def run(options: argparse.Namespace) -> None:
    """Plans, prints the trajectory a line a step, and writes it."""
    with cli.output.folder(options.out):
        cli.output.announce(options, _FILES)
        table = cli.table_of(options)
        try:
            best = inference.map_trajectory(table, _number(options.start, table))
        except ValueError as error:
            raise Mistake(error) from None
        found = _plain(best)
        texts = {"plan.json": cli.to_json(found) + "\n", "plan.csv": _csv(best)}
        cli.output.write(options, {}, texts)
    cli.show(found, [cli.title(options, table), *_lines(found)], options.json)


def _number(state: str | None, table: Any) -> int | None:
    """A state that was given by its number or by its name."""
    names = () if table.layout is None else table.layout.states or ()
    if state is None:
        return None
    if state in names:
        return int(names.index(state))
    if not state.isdecimal():
        guess = shared_options.nearest(state, names) or f"; there are 0 … {table.num_states - 1}"
        raise Mistake(f"--start: expected the number or name of a state, got {state!r}{guess}")
    return int(state)


def _plain(best: Any) -> dict[str, Any]:
    """What happens at each step, until the end or termination."""
    table, layout = best.table, best.table.layout
    states = [s for s in best.states.tolist() if s >= 0]
    actions = [a for a in best.actions.tolist() if a >= 0]
    steps, luck, total = [], 0.0, 0.0
    for t, a in enumerate(actions):
        s, after = states[t], states[t + 1] if t + 1 < len(states) else None
        at = table.at(t)
        step = {"step": t, "state": s, "action": a, "reward": at.reward[s, a].item(), "p": None}
        if after is not None:
            k = after if at.successors is None else _index(at.successors[s, a], after)
            step["p"] = at.log_dynamics[s, a, k].exp().item()
            luck += at.log_dynamics[s, a, k].item()
            if at.arrival_reward is not None:
                step["reward"] += at.arrival_reward[s, a, k].item()
        total += step["reward"]
        names = {"state_name": cli.state(layout, s), "action_name": cli.action(layout, a)}
        steps.append(step | names)
    last = None
    if len(states) > len(actions):
        last = {"state": states[-1], "state_name": cli.state(layout, states[-1])}
        total += table.final_reward[states[-1]].item()
    return {
        "log_probability": best.log_probability,
        "log_probability_of_dynamics": luck,
        "return": total,
        "steps": steps,
        "last": last,
    }


def _index(successors: Any, after: int) -> int:
    return int((successors == after).nonzero()[0])


def _lines(found: dict[str, Any]) -> list[str]:
    rows = []
    for step in found["steps"]:
        p = "" if step["p"] is None else f"{step['p']:.4g}"
        row = [str(step["step"]), step["state_name"], step["action_name"], f"{step['reward']:g}", p]
        rows.append(row)
    if found["last"] is not None:
        rows.append([str(len(rows)), found["last"]["state_name"], "", "", ""])
    luck = found["log_probability_of_dynamics"]
    return [
        *aligned([_TITLES, *_without_repeats(rows)]),
        f"log p(tau, O) = {found['log_probability']:.6g} nats, return {found['return']:.6g} "
        "(reward units).",
        f"The dynamics go along with probability {math.exp(luck):.4g} ({luck:.4g} nats).",
    ]


def _without_repeats(rows: list[list[str]]) -> list[list[str]]:
    """Rows of which three or more in a row that say the same are the first, dots and the last."""
    kept = []
    for k, row in enumerate(rows):
        alike = 0 < k < len(rows) - 1 and rows[k - 1][1:] == row[1:] == rows[k + 1][1:]
        if not alike:
            kept.append(row)
        elif kept[-1][0] != "…":
            kept.append(["…", "", "", "", ""])
    return kept


def _csv(best: Any) -> str:
    """Columns trajectory, state, action; the last state has none, where there is one."""
    states = [s for s in best.states.tolist() if s >= 0]
    actions = [str(a) for a in best.actions.tolist() if a >= 0]
    actions += [""] * (len(states) - len(actions))
    rows = [f"0,{s},{a}" for s, a in zip(states, actions, strict=True)]
    return "\n".join(["trajectory,state,action", *rows]) + "\n"

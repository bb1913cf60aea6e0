"""Sampled trajectories as tensors, and the terminal states in which they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks, one_line
from cai.distributions.exact_scores import support_size
from cai.frames.data_frame import data_frame
from cai.program.calling import call
from cai.program.interfaces import Program

_ADVICE = "for instance lambda s: s[..., 0] > 5, which treats each state on its own"


@dataclass(frozen=True, eq=False)
class Trajectories:
    """n trajectories of T steps, as tensors.

    Attributes:
        states: (n, T+1) + event shape, s_0 … s_T; after termination the state continues by the
            dynamics, without effect.
        actions: (n, T) + event shape.
        rewards: (n, T), reward units: r(s_t,a_t) + r⁺(s_t,a_t,s_{t+1}); zero once terminated.
        final_rewards: (n,), reward units: r_T(s_T); zero once terminated.
        alive: (n, T+1), boolean: whether the trajectory goes on at step t, neither terminated by
            the discount nor in a terminal state.
        log_policy: (n, T), nats: log π(a_t|s_t,z) of a policy with latents z, and log q(a_t|…)
            of any other if requested; else None.
        log_auxiliary: (n,), nats: log r(z|τ) - log q(z) of its latents; else None.
        episode_returns: (n,), reward units: the sum of all rewards of the episode of an
            environment, whatever the discount; None of a program.

    >>> from cai import models
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), samples=10, seed=0)
    >>> paths.states.shape, paths.returns.shape
    (torch.Size([10, 5]), torch.Size([10]))
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    final_rewards: Tensor
    alive: Tensor
    log_policy: Tensor | None = None
    log_auxiliary: Tensor | None = None
    episode_returns: Tensor | None = None

    def __repr__(self) -> str:
        n, T = self.rewards.shape
        mean = f"mean return={self.returns.mean().item():.6g}"
        return one_line.named("Trajectories", f"{n} of {T} steps", mean)

    @property
    def returns(self) -> Tensor:
        """(n,), reward units: the sum of all rewards of each trajectory."""
        return self.rewards.sum(-1) + self.final_rewards

    def to_dataframe(self) -> Any:
        """A pandas DataFrame with a row for each trajectory and step 0 … T.

        Its columns are "trajectory", "step", "state", "action", "reward" and "alive"; a vector has
        a column for each of its numbers, "state 0", "state 1", …. At step T there is no action,
        and the reward is the final one, so that rewards add up to ``returns``.

        Raises:
            ValueError: if pandas is not installed.
        """
        n, T = self.rewards.shape
        step = torch.arange(T + 1).expand(n, T + 1)
        acting = (step < T).flatten()
        none = self.actions.new_zeros(n, 1, *self.actions.shape[2:])
        rewards = torch.cat([self.rewards, self.final_rewards.unsqueeze(1)], 1)
        columns = {"trajectory": torch.arange(n).repeat_interleave(T + 1), "step": step.flatten()}
        columns |= _numbers("state", self.states)
        columns |= _numbers("action", torch.cat([self.actions, none], 1))
        columns |= {"reward": rewards.flatten(), "alive": self.alive.flatten()}
        found = {name: x.detach().cpu().numpy() for name, x in columns.items()}
        frame = data_frame(found, {"reward": "reward"})
        for name in [x for x in found if x.startswith("action")]:
            whole = found[name].dtype.kind in "iu"  # which have no NaN of their own
            frame[name] = frame[name].astype("Int64" if whole else float).where(acting.numpy())
        return frame


def _numbers(name: str, x: Tensor) -> dict[str, Tensor]:
    """A column, or one for each number of a vector, of (n, steps) + event shape."""
    flat = x.flatten(0, 1).flatten(1) if x.dim() > 2 else x.flatten(0, 1)
    if flat.dim() == 1:
        return {name: flat}
    return {f"{name} {k}": column for k, column in enumerate(flat.unbind(1))}


def check_terminal(terminal: Any, initial: Any) -> None:
    """Raises ValueError unless what marks terminal states is None, or a function of states."""
    if terminal is None:
        return
    if not callable(terminal):
        checks.refuse("terminal", "a function s -> boolean", repr(terminal), _ADVICE)
    if support_size(initial) is not None:
        expected = "none for states 0 … S-1, whose table shows from where no reward can follow"
        checks.refuse("terminal", expected, "a function", "leave it out")
    for shape in ((3,), (2, 3)):
        s = initial.sample(shape)
        together = is_terminal(terminal, s, shape).flatten()
        each = s.flatten(0, len(shape) - 1)
        for i, over in enumerate(together):
            if is_terminal(terminal, each[i], ()) != over:
                came = f"another in a batch, for the state {each[i].tolist()}"
                checks.refuse("terminal", "the same of a state alone and in a batch", came, _ADVICE)


def is_terminal(terminal: Any, s: Tensor, shape: Any) -> Tensor:
    """Whether the episode is over in states of a batch shape.

    Raises:
        ValueError: if the function raises, or does not return a boolean for each state.
    """
    found: Any = call("terminal", terminal, s)
    if not isinstance(found, Tensor) or found.dtype != torch.bool or found.shape != shape:
        kind = f", {found.dtype}" if isinstance(found, Tensor) else ""
        expected = f"booleans of shape {list(shape)}, for states of shape {list(s.shape)}"
        checks.refuse("terminal", expected, checks.described(found) + kind, _ADVICE)
    return found


def check_nothing_follows(over: Tensor, paid: Tensor, after: Tensor) -> None:
    """Raises ValueError if a reward follows a terminal state, or it is left again.

    Args:
        over: where the episode was over before a step.
        paid: what that step paid.
        after: whether it is over after the step.
    """
    if (over & ~after).any():
        came, advice = "one that is left again", "let dynamics stay in it"
        checks.refuse("terminal", "states from which no other follows", came, advice)
    wrong = paid.expand(over.shape)[over & (paid != 0)]
    if len(wrong):
        advice = "let rewards, final ones too, be zero there, and pay on arrival instead"
        expected = "states after which nothing is paid"
        checks.refuse("terminal", expected, f"{wrong[0].item():g}", advice)


def until_terminal(model: Program, states: Tensor, rewards: Tensor, alive: Tensor) -> Tensor:
    """Where n trajectories of T steps are alive, and in no terminal state, (n, T+1).

    Raises:
        ValueError: if a reward follows a terminal state, or it is left again.
    """
    if model.terminal is None:
        return alive
    over = is_terminal(model.terminal, states, alive.shape)
    check_nothing_follows(over[:, :-1], rewards, over[:, 1:])
    check_nothing_follows(over[:, -1], model.final_rewards(states[:, -1]), over[:, -1])
    return alive & ~over

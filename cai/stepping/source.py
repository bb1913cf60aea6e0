"""The interface of learners to a problem: transitions of many copies side by side."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Transition(NamedTuple):
    """One step of n copies, (s, t, a) -> (reward, s').

    Attributes:
        s: (n,) + event shape.
        t: (n,), integers: how many steps the episode had before this one.
        a: (n,) + event shape.
        reward: (n,), float64, reward units: r(s,a) + r⁺(s,a,s'), and r_T(s') at the horizon.
        s_next: (n,) + event shape, the next state, also if the episode is over.
        ended: (n,), boolean: the episode has terminated, and the value of s' is 0.
        cut: (n,), boolean: the episode was truncated, though s' has a value.
        counts: (n,), boolean: False if a Gymnasium environment only began another episode, which is
            not a transition; see :class:`~cai.stepping.vector_source.VectorSource`.
    """

    s: Tensor
    t: Tensor
    a: Tensor
    reward: Tensor
    s_next: Tensor
    ended: Tensor
    cut: Tensor
    counts: Tensor

    @property
    def over(self) -> Tensor:
        """(n,), boolean: the next step of this copy begins another episode."""
        return self.ended | self.cut


class Source(Protocol):
    """n copies of a problem that are stepped together; after an episode another one begins.

    Draws come from torch's generator, or from generators whose state is in ``state_dict``.
    """

    num_envs: int
    restarts: str
    """What begins anew where a state is restored, in words; empty if nothing does."""
    s: Tensor
    """(n,) + event shape, where each copy is."""
    t: Tensor
    """(n,), integers: its step within the episode."""

    def step(self, a: Tensor) -> Transition:
        """Takes one action in each copy."""

    def state_dict(self) -> dict[str, Any]:
        """The state from which ``load_state_dict`` continues, bit for bit if possible."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the copies from a state."""

"""A chain that never terminates: its average reward per step and its stationary distribution.

For the transition matrix P of a chain and its rewards c, the gain g and the bias h solve

    P g = g,    g + h = c + P h

(Puterman 1994, section 8.2). Every closed class has a gain of its own; from the other states it is
the mean over the classes that one is absorbed in. I - P is set up from what leaves each state, not
as a difference from one, and where its solution is suspiciously large it is solved again with the
digits of every exit kept (``state_reduction.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg.lapack import dgetrf, dgetrs
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from cai.numerics.exclusive import cached_property
from cai.numerics.state_reduction import StateReduction

_CAREFUL = 1000  # states up to which exits that are hardly ever taken are worth the time
_SUSPICIOUS = 1e6  # a bias this much larger than what is paid may be for lost digits


class Singular(ArithmeticError):
    """Floating-point numbers do not tell the classes of a chain apart."""


def closed_classes(chain: Any) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The strongly connected classes of states, and which of them are closed.

    Returns:
        (n,), the class of each state, and the numbers of the closed classes.
    """
    chain = sparse.csr_array(chain)
    count, member = connected_components(chain, directed=True, connection="strong")
    if count == 1:
        return member, np.zeros(1, dtype=np.intp)
    tail, head = chain.nonzero()
    left = np.unique(member[tail[member[tail] != member[head]]])
    return member, np.setdiff1d(np.arange(count), left)


class LongRun:
    """The long run of a chain of n states, which may have many closed classes.

    Args:
        chain: (n, n), probabilities whose rows sum to one; an array, or a sparse one that stores no
            zeros.

    Raises:
        Singular: if floating-point numbers cannot tell classes apart.
    """

    def __init__(self, chain: Any) -> None:
        member, closed = closed_classes(chain)
        recurrent = np.isin(member, closed)
        self._settled, self._passed = np.flatnonzero(recurrent), np.flatnonzero(~recurrent)
        _, self._first, self._member = np.unique(
            member[self._settled], return_index=True, return_inverse=True
        )
        self._moving, leaving = _off_diagonal(chain)
        self._into = self._moving[self._passed][:, self._settled]
        try:
            within = _columns_replaced(_part(leaving, self._settled), self._first, self._member)
            self._within = _Factors(within)
            self._through: Any = None
            if len(self._passed):
                self._through = _Factors(_part(leaving, self._passed))
            self._factored = True
        except Singular:  # rare exits are lost beside stays of nearly one
            if chain.shape[0] > _CAREFUL:
                raise
            self._factored = False

    def gain_and_bias(self, paid: Any) -> tuple[Any, Any]:
        """g and h of the rewards of each state, (n,) each; h = 0 in one state of each class.

        Raises:
            Singular: if they overflow.
        """
        if self._factored:
            gain, bias = self._by_factors(paid)
            fine = np.abs(bias).max() <= _SUSPICIOUS * np.abs(paid).max()  # not where NaN
        if not (self._factored and fine) and len(paid) <= _CAREFUL:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                gain, bias = self._with_care(paid)
        if not np.isfinite(bias).all():
            raise Singular
        return gain, bias

    def _by_factors(self, paid: Any) -> tuple[Any, Any]:
        bias, gain = np.empty_like(paid), np.empty_like(paid)
        found = self._within.solve(paid[self._settled])
        gains = found[self._first]
        found[self._first] = 0.0
        bias[self._settled], gain[self._settled] = found, gains[self._member]
        if self._through is not None:
            self._pass(paid, gain, bias, self._through.solve)
        return gain, bias

    def _with_care(self, paid: Any) -> tuple[Any, Any]:
        bias, gain = np.empty_like(paid), np.empty_like(paid)
        for k in range(len(self._first)):
            states = self._settled[self._member == k]
            gain[states], bias[states] = self._class(states).gain_and_bias(paid[states])
        if len(self._passed):
            self._pass(paid, gain, bias, self._passing.sums)
        return gain, bias

    def _pass(self, paid: Any, gain: Any, bias: Any, sums: Callable[[Any], Any]) -> None:
        """Fills in the transient states, by what sums up until one is absorbed."""
        passed = self._passed
        least = gain[self._settled].min()
        more = self._into @ (gain[self._settled] - least)
        gain[passed] = least + (sums(more) if more.any() else 0.0)
        bias[passed] = sums(paid[passed] - gain[passed] + self._into @ bias[self._settled])

    @cached_property
    def _passing(self) -> StateReduction:
        """The chain among transient states, until one is absorbed."""
        among = self._dense(self._moving[self._passed][:, self._passed])
        return StateReduction(among, self._dense(self._into).sum(1))

    def visits(self, start: Any) -> Any:
        """The long-run fraction of time in each state from a start distribution (n,), (n,)."""
        share = self._shares()
        if (classes := len(self._first)) > 1:
            by_class = np.bincount(self._member, start[self._settled])
            if len(self._passed):
                into = np.zeros((len(self._passed), classes))
                for k in range(classes):
                    into[:, k] = self._into[:, np.flatnonzero(self._member == k)].sum(1)
                absorbed = (self._through.solve if self._trusted else self._passing.sums)(into)
                by_class = by_class + start[self._passed] @ absorbed
            share = share * (by_class / by_class.sum())[self._member]
        visits = np.zeros(len(start))
        visits[self._settled] = share
        return visits

    @cached_property
    def _trusted(self) -> bool:
        """Whether the factors have the digits of every exit, judged by a probe."""
        if not self._factored:
            return False
        n = self._moving.shape[0]
        _, bias = self._by_factors(np.cos(np.arange(n)))
        return bool(np.abs(bias).max() <= _SUSPICIOUS) or n > _CAREFUL

    def _shares(self) -> Any:
        """The fraction of time in each recurrent state, given its class."""
        if self._trusted:
            ones = np.zeros(len(self._settled))
            ones[self._first] = 1.0
            share = np.maximum(self._within.solve(ones, transposed=True), 0.0)
        else:
            share = np.empty(len(self._settled))
            for k in range(len(self._first)):
                mine = self._member == k
                share[mine] = self._class(self._settled[mine]).visits()
        return share / np.bincount(self._member, share)[self._member]

    def _class(self, states: Any) -> StateReduction:
        within = self._dense(self._moving[states][:, states])
        return StateReduction(within, np.zeros(len(states)))

    @staticmethod
    def _dense(matrix: Any) -> Any:
        return matrix.toarray() if sparse.issparse(matrix) else matrix


class _Factors:
    """An LU factorisation, dense or sparse."""

    def __init__(self, matrix: Any) -> None:
        self._lu: Any = None
        self._pivots: Any = None
        try:
            if sparse.issparse(matrix):
                self._lu = splu(matrix.tocsc())
                return
        except RuntimeError:
            raise Singular from None
        self._lu, self._pivots, failed = dgetrf(matrix)
        if failed:
            raise Singular

    def solve(self, b: Any, transposed: bool = False) -> Any:
        if self._pivots is None:
            return self._lu.solve(b, trans="T" if transposed else "N")
        return dgetrs(self._lu, self._pivots, b, trans=int(transposed))[0]


def _off_diagonal(chain: Any) -> tuple[Any, Any]:
    """P without its diagonal, and I - P."""
    if not sparse.issparse(chain):
        moving = chain.copy()
        np.fill_diagonal(moving, 0.0)
        leaving = -moving
        np.fill_diagonal(leaving, moving.sum(1))
        return moving, leaving
    moving = (chain - sparse.diags_array(chain.diagonal())).tocsr()
    return moving, (sparse.diags_array(moving.sum(1)) - moving).tocsr()


def _part(matrix: Any, states: Any) -> Any:
    return matrix if len(states) == matrix.shape[0] else matrix[states][:, states]


def _columns_replaced(matrix: Any, first: Any, member: Any) -> Any:
    """The system with the gain of each class as the unknown of its first state, of bias zero."""
    n = len(member)
    if not sparse.issparse(matrix):
        matrix[:, first] = member[:, np.newaxis] == np.arange(len(first))
        return matrix
    kept = np.ones(n)
    kept[first] = 0.0
    gains = sparse.csr_array((np.ones(n), (np.arange(n), first[member])), shape=(n, n))
    return matrix @ sparse.diags_array(kept) + gains

"""Draws by inverting cumulative sums, in torch and in numpy."""

import numpy as np
import pytest
import torch

from cai.numerics import inverse_cdf

P = torch.tensor([0.0, 0.1, 0.2, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (1 - 2**-53, 2), (0.5, 2), (0.2, 1)])
def test_draws_never_land_on_what_is_impossible(uniform, expected):
    sums, uniform = inverse_cdf.cumulative(P), torch.tensor([[uniform]], dtype=torch.float64)
    assert inverse_cdf.draw(sums, uniform).tolist() == [expected]
    assert inverse_cdf.draw(sums.numpy(), uniform.numpy()).tolist() == [expected]


def test_a_sum_that_rounds_below_one_ends_at_one():
    p = torch.full((10,), 0.1, dtype=torch.float64)
    assert p.cumsum(0)[-1] < 1
    assert inverse_cdf.cumulative(p)[-1] == 1


def test_rows_are_drawn_in_their_proportions_and_never_what_is_impossible():
    p = torch.tensor([[0.0, 0.25, 0.0, 0.75], [1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]])
    rows = inverse_cdf.Rows(p)
    uniform = np.concatenate([np.arange(4096) / 4096, [1 - 2.0**-53]])
    for i, row in enumerate(p.tolist()):
        found = rows.draw(np.full(len(uniform), i), uniform) - 4 * i
        counts = np.bincount(found, minlength=4) / 4096
        assert np.allclose(counts, row, atol=2 / 4096)
        assert all(n == 0 for n, share in zip(counts, row, strict=True) if share == 0)

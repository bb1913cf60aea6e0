"""Derivatives by differences."""

import torch


def numerically(score, weights, h=1e-5):
    """Differences of the values (n, k), and of the summed scores (k, k)."""
    values, slopes = [], []
    for i in range(len(weights)):
        step = torch.zeros_like(weights)
        step[i] = h
        after, before = score(weights + step), score(weights - step)
        values.append((after.values - before.values) / (2 * h))
        slopes.append((after.scores - before.scores).sum(0) / (2 * h))
    return torch.stack(values, 1), torch.stack(slopes, 1)

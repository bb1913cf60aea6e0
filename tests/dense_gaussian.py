"""A linear-Gaussian problem as one dense Gaussian over the whole trajectory."""

import math

import numpy as np
import torch


class Dense:
    """s_0, the actions given by a policy, and the noise, as one vector z ~ N(0, I)."""

    def __init__(self, model, gains, offsets, roots):
        T, n, m = model.horizon, model.state_size, model.action_size
        step = lambda x, t, d: x.numpy()[t] if x.dim() > d else x.numpy()  # noqa: E731
        self.size = n + T * (m + n)
        self.model, self.T = model, T
        at = n

        def standard(root):
            nonlocal at
            F = np.zeros((len(root), self.size))
            F[:, at : at + root.shape[1]] = root
            at += root.shape[1]
            return F

        F = np.zeros((n, self.size))
        F[:, :n] = square_root(model.initial_covariance.numpy())
        self.s, self.a = [(F, model.initial_mean.numpy())], []
        self.own = []  # the standard normals of each action
        for t in range(T):
            F, f = self.s[-1]
            e = standard(np.eye(m))
            self.own.append(e)
            self.a.append((roots[t] @ e - gains[t] @ F, offsets[t] - gains[t] @ f))
            G, g = self.a[-1]
            A, B = step(model.A, t, 2), step(model.B, t, 2)
            W = standard(square_root(step(model.noise, t, 2)))
            self.s.append((A @ F + B @ G + W, A @ f + B @ g + step(model.drift, t, 1)))
        self.roots = roots

    def log_ratio(self):
        """log p(τ,O)/q(τ) = Σ r/α + r_T/α + Σ log p(a) - log q(a|s) = -½ z'Mz + v'z + c."""
        model, alpha = self.model, self.model.temperature
        M, v, c = np.zeros((self.size,) * 2), np.zeros(self.size), 0.0

        def add(F, f, C, slope, k=0.0):
            nonlocal M, v, c
            M, v = M + F.T @ C @ F, v + F.T @ (slope - C @ f)
            c += k + slope @ f - 0.5 * f @ C @ f

        each = lambda x, d: list(x.numpy()) if x.dim() > d else [x.numpy()] * self.T  # noqa: E731
        parts = [each(getattr(model, name), d) for name, d in zip("QNR", (2, 2, 2), strict=True)]
        slopes = each(model.q, 1), each(model.rho, 1)
        for t in range(self.T):
            Q, N, R = (part[t] for part in parts)
            F, f = (np.concatenate(pair) for pair in zip(self.s[t], self.a[t], strict=True))
            slope = np.concatenate([slopes[0][t], slopes[1][t]])
            add(F, f, np.block([[Q, N], [N.T, R]]) / alpha, slope / alpha)
            m = len(R)
            add(self.own[t], np.zeros(m), -np.eye(m), np.zeros(m), normaliser(self.roots[t]))
            if not model.flat:
                prior = model.prior(torch.zeros(1), t)
                root = prior.scale_tril.numpy()
                inverse = np.linalg.inv(root @ root.T)
                mean = prior.loc.numpy()
                add(*self.a[t], inverse, inverse @ mean, -normaliser(root))
                c -= 0.5 * mean @ inverse @ mean
        add(*self.s[-1], model.Q_final.numpy() / alpha, model.q_final.numpy() / alpha)
        return M, v, c

    def renyi(self, eta):
        """(1/η) log E_q[(p(τ,O)/q(τ))^η], or the ELBO at η = 0."""
        M, v, c = self.log_ratio()
        if eta == 0:
            return c - 0.5 * np.trace(M)
        precision = np.eye(self.size) + eta * M
        values = np.linalg.eigvalsh(M)
        if (1 + eta * values).min() <= 0:
            return math.copysign(math.inf, eta)
        log_det = np.log1p(eta * values).sum() / eta  # as exact at η = 1e-9 as anywhere
        return c + 0.5 * eta * v @ np.linalg.solve(precision, v) - 0.5 * log_det

    def conditioned(self):
        """Mean and covariance of z given O."""
        M, v, _ = self.log_ratio()
        covariance = np.linalg.inv(np.eye(self.size) + M)
        return covariance @ v, covariance


def normaliser(root):
    """½ log det 2πC, with C = root root'."""
    return np.linalg.slogdet(root)[1] + 0.5 * len(root) * math.log(2 * math.pi)


def square_root(C):
    values, vectors = np.linalg.eigh(C)
    return vectors * np.sqrt(values.clip(0))


def slope_at_zero(f, h):
    """f'(0) by differences, up to h⁴."""
    return (8 * (f(h) - f(-h)) - f(2 * h) + f(-2 * h)) / (12 * h)


def dense(model, policy, seed=None):
    """The dense trajectory under a policy, or near it: nudged at random by a seed."""
    T = model.horizon
    K, k = (x.expand(T, *x.shape[-d:]).numpy() for x, d in ((policy.gains, 2), (policy.offsets, 1)))
    roots = policy.scale_tril.detach().numpy()
    if seed is not None:
        rng = np.random.default_rng(seed)
        K, k = K + 0.1 * rng.normal(size=K.shape), k + 0.1 * rng.normal(size=k.shape)
        roots = roots * np.exp(0.1 * rng.normal(size=(T, 1, 1)))
    return Dense(model, K, k, roots)

// The soft Bellman recursion of cai/tables/bellman.py on lists of successors, in nats, and what
// follows from it: occupancies, returns, the ELBO, and the KL to the exact posterior in its parts.
//
// A world has S states and A actions; row i = s·A + a of its lists are the entries from[i] … from[i+1] - 1 of
//   next      which state follows,
//   p         with which probability (0 if not at this step),
//   arrival   what is paid on arrival, reward units;
// and reward (S·A), prior (S·A), initial (S), final (S). Of the fields in its set `timed` there is
// such an array for each step, one after the other.

// A setting of the dials: T steps, temperature alpha, optimism eta, survival gamma.

const { abs, ceil, exp, expm1, floor, hypot, log, log10, log1p, max, min, round, sqrt } = Math;

/** (1/η) log Σ p exp(ηx) over n outcomes, p from an offset; the mean at η = 0. What has no
 *  probability does not count, even if its x is infinite. */
function softMean(p, at, x, n, eta) {
  let top = -Infinity,
    low = Infinity,
    mean = 0,
    mass = 0,
    lost = 0;
  for (let k = 0; k < n; k++) {
    const w = p[at + k],
      y = x[k];
    if (w === 0) continue;
    if (y === -Infinity) {
      lost += w;
      continue;
    }
    if (y > top) top = y;
    if (y < low) low = y;
    mean += w * y;
    mass += w;
  }
  if (mass === 0 || (lost > 0 && eta <= 0)) return -Infinity;
  if (eta === 0) return mean;
  if (low === top && lost === 0) return top;
  // Around the mean where η is small, so that the logarithm is of a number close to one.
  const near = abs(eta) * (top - low) <= 1,
    m = near ? mean / mass : eta > 0 ? top : low;
  if (near) {
    let rest = -lost;
    for (let k = 0; k < n; k++) {
      if (p[at + k] !== 0 && x[k] !== -Infinity) rest += p[at + k] * expm1(eta * (x[k] - m));
    }
    if (rest > -0.5) return m + log1p(rest) / eta; // else 1 + rest would lose its digits
  }
  let sum = 0;
  for (let k = 0; k < n; k++) if (p[at + k] !== 0) sum += p[at + k] * exp(eta * (x[k] - m));
  return m + log(sum) / eta;
}

/** Where the arrays of a step begin, in fields that have one for each step. */
function offsets({ S, A, from, timed }, t) {
  const at = (name, size) => (timed.has(name) ? t * size : 0),
    N = from[S * A];
  return {
    ofP: at('p', N),
    ofArrival: at('arrival', N),
    ofReward: at('reward', S * A),
    ofPrior: at('prior', S * A),
  };
}

/** (1/η) log(γ exp(ηv) + 1 - γ) of each successor's value v from an offset, into c. */
function continuation(v, at, S, { eta, gamma }, c) {
  const coin = [gamma, 1 - gamma],
    two = [0, 0];
  for (let s = 0; s < S; s++) {
    two[0] = v[at + s];
    c[s] = gamma === 1 ? two[0] : softMean(coin, 0, two, 2, eta);
  }
}

/** γ exp(ηv) / (γ exp(ηv) + 1 - γ), survival as it is believed in, into alive. */
function survival(v, at, S, { eta, gamma }, c, alive) {
  for (let s = 0; s < S; s++) {
    const lost = v[at + s] === -Infinity;
    if (gamma === 1 || eta === 0) alive[s] = gamma;
    else if (lost) alive[s] = eta > 0 ? 0 : 1;
    else alive[s] = gamma * exp(eta * (v[at + s] - c[s]));
  }
}

/** Values and policy at one setting.
 *
 *  v (T+1, S) nats; q (T, S, A) nats; soft (T, S, A), the soft means within q; pi (T, S, A);
 *  bound, nats; start (S), the initial states as they are believed in. */
function solve(world, setting) {
  const { S, A, from, next, p, arrival, reward, prior, initial, final } = world;
  const { T, alpha, eta } = setting,
    SA = S * A;
  const v = new Float64Array((T + 1) * S),
    q = new Float64Array(T * SA),
    soft = new Float64Array(T * SA);
  const pi = new Float64Array(T * SA),
    x = new Float64Array(world.widest),
    c = new Float64Array(S);
  for (let s = 0; s < S; s++) v[T * S + s] = final[s] / alpha;
  for (let t = T - 1; t >= 0; t--) {
    const { ofP, ofArrival, ofReward, ofPrior } = offsets(world, t);
    continuation(v, (t + 1) * S, S, setting, c);
    for (let s = 0; s < S; s++) {
      const first = s * A,
        to = t * SA + first;
      let top = -Infinity;
      for (let a = 0; a < A; a++) {
        const begin = from[first + a],
          n = from[first + a + 1] - begin;
        for (let k = 0; k < n; k++) x[k] = arrival[ofArrival + begin + k] / alpha + c[next[begin + k]];
        const mean = softMean(p, ofP + begin, x, n, eta);
        const value = reward[ofReward + first + a] / alpha + mean;
        soft[to + a] = mean;
        q[to + a] = value;
        if (prior[ofPrior + first + a] > 0 && value > top) top = value;
      }
      let z = 0;
      for (let a = 0; a < A; a++) {
        const w = prior[ofPrior + first + a]; // at a dead end the policy is the prior
        pi[to + a] = top > -Infinity && w > 0 ? w * exp(q[to + a] - top) : w;
        z += pi[to + a];
      }
      v[t * S + s] = top > -Infinity ? top + log(z) : -Infinity;
      for (let a = 0; a < A; a++) pi[to + a] /= z;
    }
  }
  const bound = softMean(initial, 0, v, S, eta);
  const start = new Float64Array(S);
  tilt(initial, 0, v, S, eta, bound, start);
  return { v, q, soft, pi, bound, start, setting };
}

/** p exp(η(x - mean)) of n outcomes into b: the distribution that is believed in. */
function tilt(p, at, x, n, eta, mean, b) {
  if (eta === 0 || (mean === -Infinity && eta > 0)) {
    // nothing is left: the true one
    for (let k = 0; k < n; k++) b[k] = p[at + k];
  } else if (mean === -Infinity) {
    // η < 0: the worst is certain
    let mass = 0;
    for (let k = 0; k < n; k++) if (x[k] === -Infinity) mass += p[at + k];
    for (let k = 0; k < n; k++) b[k] = x[k] === -Infinity ? p[at + k] / mass : 0;
  } else {
    for (let k = 0; k < n; k++) b[k] = p[at + k] === 0 ? 0 : p[at + k] * exp(eta * (x[k] - mean));
  }
}

/** log π(a|s)/p(a|s) of state s at step t, entry i of its actions, nats; 0 at a dead end. */
function logRatio({ v, q }, S, A, t, s, i) {
  return v[t * S + s] > -Infinity ? q[t * S * A + i] - v[t * S + s] : 0;
}

/** The chain of a solution's policy, in the dynamics that it believes in or in the true ones.
 *
 *  states (T+1, S), alive; income, reward units; elbo, nats (of the true dynamics). */
function chain(world, solution, believed) {
  const { S, A, from, next, p, arrival, reward, prior, initial, final } = world;
  const { v, soft, pi, setting } = solution,
    { T, alpha, gamma, eta } = setting,
    SA = S * A;
  const d = new Float64Array((T + 1) * S),
    x = new Float64Array(world.widest),
    b = new Float64Array(world.widest);
  const c = new Float64Array(S),
    alive = new Float64Array(S).fill(gamma);
  d.set(believed ? solution.start : initial);
  let income = 0,
    actions = 0;
  for (let t = 0; t < T; t++) {
    const { ofP, ofArrival, ofReward, ofPrior } = offsets(world, t);
    if (believed) {
      continuation(v, (t + 1) * S, S, setting, c);
      survival(v, (t + 1) * S, S, setting, c, alive);
    }
    for (let s = 0; s < S; s++) {
      const here = d[t * S + s];
      if (here === 0) continue;
      for (let a = 0; a < A; a++) {
        const i = s * A + a,
          w = here * pi[t * SA + i];
        if (w === 0) continue;
        income += w * reward[ofReward + i];
        actions += w * logRatio(solution, S, A, t, s, i);
        const begin = from[i],
          n = from[i + 1] - begin;
        if (believed) {
          for (let k = 0; k < n; k++) x[k] = arrival[ofArrival + begin + k] / alpha + c[next[begin + k]];
          tilt(p, ofP + begin, x, n, eta, soft[t * SA + i], b);
        }
        for (let k = 0; k < n; k++) {
          const moved = w * (believed ? b[k] : p[ofP + begin + k]);
          if (moved === 0) continue;
          income += moved * arrival[ofArrival + begin + k];
          d[(t + 1) * S + next[begin + k]] += moved * alive[next[begin + k]];
        }
      }
    }
  }
  for (let s = 0; s < S; s++) if (d[T * S + s] > 0) income += d[T * S + s] * final[s];
  return { states: d, income, elbo: income / alpha - actions };
}

/** p log(p/q) + q - p from p and d = log(p/q), a term of a divergence: of second order in d. */
function divergence(p, d, q = null) {
  return p * d + (abs(d) < 1 ? p * expm1(-d) : (q ?? p * exp(-d)) - p);
}

/** KL of a policy in the true dynamics to the exact posterior: start, actions, dynamics, nats. */
function split(world, solution, real, exact) {
  const { S, A, from, next, p, arrival, initial } = world;
  const { T, alpha, gamma } = exact.setting,
    SA = S * A;
  const c = new Float64Array(S),
    ends = new Float64Array(S);
  let start = 0,
    actions = 0,
    dynamics = 0;
  for (let s = 0; s < S; s++)
    if (initial[s] > 0 && exact.bound > -Infinity) start += divergence(initial[s], exact.bound - exact.v[s]);
  for (let t = 0; t < T; t++) {
    const { ofP, ofArrival } = offsets(world, t);
    continuation(exact.v, (t + 1) * S, S, exact.setting, c);
    if (gamma < 1) {
      for (let s = 0; s < S; s++) {
        ends[s] = divergence(gamma, c[s] - exact.v[(t + 1) * S + s]) + divergence(1 - gamma, c[s]);
      }
    }
    for (let s = 0; s < S; s++) {
      const here = real.states[t * S + s];
      if (here === 0) continue;
      for (let a = 0; a < A; a++) {
        const i = s * A + a,
          at = t * SA + i,
          w = here * solution.pi[at];
        const apart = logRatio(solution, S, A, t, s, i) - logRatio(exact, S, A, t, s, i);
        actions +=
          solution.pi[at] > 0 ? here * divergence(solution.pi[at], apart, exact.pi[at]) : here * exact.pi[at];
        if (w === 0) continue;
        const mean = exact.soft[at];
        for (let k = from[i]; k < from[i + 1]; k++) {
          const chance = p[ofP + k];
          if (chance === 0) continue;
          if (mean > -Infinity)
            dynamics += w * divergence(chance, mean - arrival[ofArrival + k] / alpha - c[next[k]]);
          dynamics += w * chance * ends[next[k]];
        }
      }
    }
  }
  return { start, actions, dynamics };
}

/** All that the page shows at one setting; solutions that a dial left alone are taken from before. */
function explore(world, setting, before = null) {
  const { T, alpha, eta, gamma } = setting,
    old = before?.setting;
  const same = before?.world === world && old.T === T && old.alpha === alpha && old.gamma === gamma;
  const at = (value, kept) => (same ? kept : solve(world, { ...setting, eta: value }));
  const exact = at(1, before?.exact),
    fixed = at(0, before?.fixed);
  const it = eta === 1 ? exact : eta === 0 ? fixed : solve(world, setting);
  const imagined = chain(world, it, true),
    real = chain(world, it, false);
  const gap = it.bound === real.elbo ? 0 : it.bound - real.elbo; // -∞ - -∞ is no gap
  return { world, setting, it, exact, fixed, imagined, real, gap, kl: split(world, it, real, exact) };
}

// From a solution to pictures: occupancies, policies and values, on maps or as a list of states.

const REWARD = 'reward units';

/** How often each state is visited: its share of all steps, or its probability at one. */
function shares(states, S, t) {
  if (t >= 0) return states.subarray(t * S, (t + 1) * S);
  const sum = new Float64Array(S);
  let all = 0;
  for (let i = 0; i < states.length; i++) {
    sum[i % S] += states[i];
    all += states[i];
  }
  return sum.map((x) => x / all);
}

/** The policy in each state, averaged over the steps at which a chain is there, and whether it is. */
function policyOf({ world: { S, A }, it: { pi }, setting: { T } }, states, t) {
  const policy = new Float64Array(S * A),
    seen = new Float64Array(S);
  const [first, last] = t < 0 ? [0, T - 1] : [min(t, T - 1), min(t, T - 1)];
  for (let u = first; u <= last; u++) {
    for (let s = 0; s < S; s++) {
      const w = states[u * S + s];
      seen[s] += w;
      if (w > 0) for (let a = 0; a < A; a++) policy[s * A + a] += w * pi[(u * S + s) * A + a];
    }
  }
  for (let s = 0; s < S; s++) {
    for (let a = 0; a < A; a++)
      policy[s * A + a] = seen[s] > 0 ? policy[s * A + a] / seen[s] : pi[(first * S + s) * A + a];
  }
  return { policy, seen };
}

/** What the third picture shows: a number for each state, its unit, and its shade from 0 to 1. */
function viewOf({ world: { S, A }, it, exact, fixed, setting: { T, alpha } }) {
  const t = max(state.t, 0),
    value = new Float64Array(S);
  const luck = state.view === 'optimism',
    a = Number(state.view.slice(1));
  for (let s = 0; s < S; s++) {
    if (luck)
      value[s] = exact.v[t * S + s] === fixed.v[t * S + s] ? 0 : exact.v[t * S + s] - fixed.v[t * S + s];
    else if (state.view === 'V') value[s] = alpha * it.v[t * S + s];
    else value[s] = t < T ? alpha * it.q[(t * S + s) * A + a] : alpha * it.v[t * S + s];
  }
  const finite = value.filter(Number.isFinite),
    high = max(...finite, -1e300);
  const low = luck ? 0 : min(...finite, 1e300),
    span = high - low > 1e-9 ? high - low : Infinity;
  const when = state.t < 0 ? 'at the start' : `at t = ${t}`,
    [unit, what] = luck
      ? ['nats', 'optimism']
      : [REWARD, state.view === 'V' ? 'V' : `Q of ${worldNow().actions[a]}`];
  return {
    value,
    unit,
    what,
    title: `${what} (${unit}), ${when}`,
    shade: (x) => (x === Infinity ? 1 : clamp((x - low) / span, 0, 1)),
  };
}

function showPictures(found) {
  const { world, imagined, real } = found,
    { S } = world;
  const both = [imagined, real].map(({ states }) => shares(states, S, state.t)),
    view = viewOf(found);
  const asMap = world.map && world.map.length * world.map[0].length <= MOST_CELLS;
  $('maps').hidden = !asMap;
  $('list').hidden = asMap;
  $('maps').style.setProperty('--least', asMap && world.map[0].length > 8 ? '300px' : '250px');
  if (asMap) drawMaps(found, both, view);
  else drawList(found, both, view);
  const said = [];
  if (asMap) said.push(`Numbers: percent of ${state.t < 0 ? 'all steps' : 'trajectories at this step'}.`);
  if (asMap && world.moves)
    said.push('Arrows: the policy; the longer, the more probable the action; grey where it never comes.');
  if (!asMap && S > LISTED) said.push(`The ${LISTED} most visited of ${S} states.`);
  if (state.view === 'optimism')
    said.push(
      'Optimism: the value at η = 1 minus that at η = 0, by how many nats p(τ | O) overrates a state.',
    );
  $('scale').textContent = said.join(' ');
}

function drawMaps({ world, imagined, real, ...rest }, both, view) {
  const { S, A, map, cells, done } = world,
    [rows, columns] = [map.length, map[0].length],
    n = rows * columns;
  const at = cells.map(([i, j]) => i * columns + j),
    letters = map.join('');
  if (!scheme) {
    const styles = getComputedStyle(document.documentElement),
      colour = (name) => styles.getPropertyValue(`--${name}`).trim();
    const paper = colour('paper');
    scheme = Object.fromEntries(
      ['imagined', 'real', 'dynamics', 'worth'].map((name) => [name, ramp(colour(name), paper)]),
    );
  }
  const cellsOf = both.map((share) => {
    const sum = new Float64Array(n);
    for (let s = 0; s < S; s++) sum[at[s]] += share[s];
    return sum;
  });
  const top = max(...cellsOf[0], ...cellsOf[1], 1e-300),
    highest = new Float64Array(n).fill(-Infinity),
    known = new Uint8Array(n);
  for (let s = 0; s < S; s++) {
    known[at[s]] = 1;
    highest[at[s]] = max(highest[at[s]], view.value[s]);
  }
  const place = (k) =>
    `row ${floor(k / columns) + 1}, column ${(k % columns) + 1}, ${state.kind === 'map' ? WORDS[letters[k]] : `"${letters[k]}"`}`;
  const label = times(
    n,
    (k) =>
      place(k) +
      (known[k]
        ? `: imagined ${spell(100 * cellsOf[0][k], 1)} %, real ${spell(100 * cellsOf[1][k], 1)} %, ${view.what} ${spell(highest[k])} ${view.unit}`
        : ''),
  );
  const common = { letters, labels: label };
  [
    ['imagines', imagined, 'imagined'],
    ['gets', real, 'real'],
  ].forEach(([id, { states }, colour], k) => {
    const shades = Array.from(cellsOf[k], (x) => round(64 * sqrt(clamp(x / top, 0, 1))));
    const moves =
      state.t < state.T
        ? movesOf(world, policyOf({ world, ...rest }, states, state.t), at, n, columns)
        : null;
    pictures[id].build(rows, columns);
    pictures[id].draw({
      ...common,
      shades,
      numbers: Array.from(cellsOf[k], percent),
      colours: scheme[colour],
      moves,
    });
  });
  const shades = Array.from(highest, (x, k) => (known[k] ? round(64 * view.shade(x)) : 0));
  const numbers = Array.from(highest, (x, k) => (known[k] ? spell(x, abs(x) < 9.95 ? 1 : 0) : ''));
  pictures.third.build(rows, columns);
  pictures.third.draw({
    ...common,
    shades,
    numbers,
    colours: scheme[state.view === 'optimism' ? 'dynamics' : 'worth'],
  });
  $('third-title').textContent = view.title;
  for (const { svg } of Object.values(pictures)) svg.classList.toggle('editable', state.kind === 'map');
}

/** The arrows of each cell: the policy of its states, by how often it is in each of them. */
function movesOf({ S, A, moves, cells, done }, { policy, seen }, at, n, columns) {
  if (!moves) return null;
  const directions = [...new Set(moves.map(String))],
    which = moves.map((move) => directions.indexOf(String(move)));
  const mass = new Float64Array(n),
    plain = new Float64Array(n),
    D = directions.length;
  const weighted = new Float64Array(n * D),
    unweighted = new Float64Array(n * D);
  for (let s = 0; s < S; s++) {
    if (done[s]) continue;
    mass[at[s]] += seen[s];
    plain[at[s]] += 1;
    for (let a = 0; a < A; a++) {
      weighted[at[s] * D + which[a]] += seen[s] * policy[s * A + a];
      unweighted[at[s] * D + which[a]] += policy[s * A + a];
    }
  }
  return times(n, (k) => {
    let lines = '',
      dots = '';
    const visited = mass[k] > 1e-12;
    for (let d = 0; d < D && plain[k]; d++) {
      const p = visited ? weighted[k * D + d] / mass[k] : unweighted[k * D + d] / plain[k],
        [di, dj] = moves[which.indexOf(d)];
      if (p < LEAST) continue;
      if (di === 0 && dj === 0) dots += dotPath(floor(k / columns), k % columns, p);
      else lines += arrowPath(floor(k / columns), k % columns, [di, dj], p);
    }
    return { lines, dots, seen: visited };
  });
}

function drawList(found, both, view) {
  const { world } = found,
    { S, A } = world,
    names = world.actions;
  const order = times(S, (s) => s),
    visits = (s) => max(both[0][s], both[1][s]);
  const kept =
    S <= LISTED
      ? order
      : order
          .sort((a, b) => visits(b) - visits(a))
          .slice(0, LISTED)
          .sort((a, b) => a - b);
  const { policy, seen } = policyOf(found, found.real.states, state.t),
    top = max(...kept.map(visits), 1e-300);
  list.build(names, kept.length);
  list.draw(
    kept.map((s) => {
      const row = policy.slice(s * A, (s + 1) * A),
        words = names.map((name, a) => `${name} ${spell(100 * row[a], 1)} %`).join(', ');
      return {
        index: s,
        name: stateName(world, s),
        shares: both.map((share) => share[s]),
        top,
        policy: row,
        seen: seen[s] > 0,
        done: world.done[s],
        words: world.done[s] ? 'never left' : words,
        value: spell(view.value[s]),
      };
    }),
    view.title,
  );
}

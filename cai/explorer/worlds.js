// The worlds to explore: grid worlds as cai.models.gridworld builds them, the ledge, and a table.

/** A list of what a function makes of 0 … n-1. */
const times = (n, make) => Array.from({ length: n }, (_, k) => make(k));

const MAPS = {
  cliff: ['............', '............', '............', 'SPPPPPPPPPPG'],
  bridge: ['#.....#', '.......', '.#PPP#.', 'S.....G', '.#PPP#.'],
  rooms: ['S..#...', '...#...', '......G', '...#...', '##.##.#', '...#...', '.......'],
};
const DIRECTIONS = { up: [-1, 0], right: [0, 1], down: [1, 0], left: [0, -1] };
const PITS = 'PH'; // letters of what one should not be in; H on Gymnasium's maps

/** A world from rows of outcomes: outcomes(s, a) lists [next state, probability, arrival reward]. */
function fromOutcomes(S, A, outcomes, rest) {
  const from = new Int32Array(S * A + 1),
    next = [],
    p = [],
    arrival = [];
  for (let i = 0; i < S * A; i++) {
    for (const [to, chance, paid] of outcomes(floor(i / A), i % A)) {
      next.push(to);
      p.push(chance);
      arrival.push(paid);
    }
    from[i + 1] = next.length;
  }
  return complete({
    S,
    A,
    from,
    next: Int32Array.from(next),
    p: Float64Array.from(p),
    arrival: Float64Array.from(arrival),
    prior: new Float64Array(S * A).fill(1 / A),
    final: new Float64Array(S),
    timed: new Set(),
    ...rest,
  });
}

/** Adds what follows from the lists: the longest list, and which states are never left. */
function complete(world) {
  const { S, A, from, next, p } = world,
    N = from[S * A];
  world.widest = 1;
  for (let i = 0; i < S * A; i++) world.widest = max(world.widest, from[i + 1] - from[i]);
  world.done = times(S, (s) => {
    for (let k = from[s * A]; k < from[s * A + A]; k++) {
      if (next[k] !== s) for (let at = k; at < p.length; at += N) if (p[at] > 0) return false;
    }
    return true;
  });
  return world;
}

/** A grid world, with the arguments of cai.models.gridworld. */
function gridworld(
  rows,
  { slip = 0.1, wind = 0, windDirection = 'down', step = -1, goal = 0, pit = -100 } = {},
) {
  const cells = [],
    index = new Map(),
    moves = Object.values(DIRECTIONS);
  rows.forEach((row, i) =>
    [...row].forEach((letter, j) => {
      if (letter === '#') return;
      index.set(i * row.length + j, cells.length);
      cells.push([i, j]);
    }),
  );
  const S = cells.length,
    A = 4,
    blows = Object.keys(DIRECTIONS).indexOf(windDirection);
  const letters = cells.map(([i, j]) => rows[i][j]),
    done = letters.map((c) => c === 'G' || c === 'P');
  const paid = letters.map((c) => (c === 'G' ? goal : c === 'P' ? pit : 0));
  const neighbour = cells.map(([i, j], s) =>
    moves.map(([di, dj]) => {
      const inside = i + di >= 0 && i + di < rows.length && j + dj >= 0 && j + dj < rows[0].length;
      return inside ? (index.get((i + di) * rows[0].length + j + dj) ?? s) : s;
    }),
  );
  const outcomes = (s, a) => {
    if (done[s]) return [[s, 1, 0]];
    const found = new Map(),
      add = (to, chance) => {
        if (chance > 0) found.set(to, (found.get(to) ?? 0) + chance);
      };
    for (const [turn, chance] of [
      [0, 1 - slip],
      [1, slip / 2],
      [3, slip / 2],
    ]) {
      const to = neighbour[s][(a + turn) % 4];
      if (done[to]) add(to, chance);
      else {
        add(to, chance * (1 - wind));
        add(neighbour[to][blows], chance * wind);
      }
    }
    return [...found].map(([to, chance]) => [to, chance, paid[to]]);
  };
  const starts = letters.filter((c) => c === 'S').length;
  return fromOutcomes(S, A, outcomes, {
    reward: Float64Array.from(times(S * A, (i) => (done[floor(i / A)] ? 0 : step))),
    initial: Float64Array.from(letters, (c) => (c === 'S' ? 1 / starts : 0)),
    map: rows,
    cells,
    moves,
    actions: Object.keys(DIRECTIONS),
    states: null,
  });
}

/** The ledge, with the arguments of cai.models.ledge. */
function ledge({ gives = 0.5, fall = -6 } = {}) {
  const [START, BEND, LAST, HOME, RAVINE] = [0, 1, 2, 3, 4],
    onward = [BEND, LAST, HOME, HOME, RAVINE];
  const outcomes = (s, a) => {
    if (s !== START || a !== 0) return [[onward[s], 1, 0]];
    return [
      [HOME, 1 - gives, 0],
      [RAVINE, gives, fall],
    ].filter(([, chance]) => chance > 0);
  };
  return fromOutcomes(5, 2, outcomes, {
    reward: Float64Array.from([-1, -1, -1, -1, -1, -1, 0, 0, 0, 0]),
    initial: Float64Array.from([1, 0, 0, 0, 0]),
    map: null,
    cells: null,
    moves: null,
    actions: ['short cut', 'path'],
    states: ['start', 'bend', 'last bend', 'home', 'ravine'],
    goals: [HOME],
    pits: [RAVINE],
  });
}

/** A table as cai/explorer/table_as_json.py writes it. */
function fromTable(json) {
  const { S, A } = json,
    numbers = (list) => Float64Array.from(list, (x) => (x === null ? -Infinity : x));
  const world = { S, A, timed: new Set(json.timed), next: Int32Array.from(json.next) };
  for (const name of ['p', 'initial']) world[name] = numbers(json[name]);
  world.reward = numbers(json.reward);
  world.prior = json.prior.length === A ? numbers(times(S, () => json.prior).flat()) : numbers(json.prior);
  world.arrival = json.arrival ? numbers(json.arrival) : new Float64Array(world.next.length);
  world.final = json.final ? numbers(json.final) : new Float64Array(S);
  world.from = new Int32Array(S * A + 1);
  json.counts.forEach((n, i) => {
    world.from[i + 1] = world.from[i] + n;
  });
  for (const name of ['map', 'cells', 'moves', 'actions', 'states']) world[name] = json[name] ?? null;
  world.actions ??= times(A, (a) => `action ${a}`);
  return complete(world);
}

/** The states of a kind, of which the probability at the end is shown: those of a letter from
 *  which none is ever left, since Taxi's G is no goal. */
function finals(world, kind) {
  const given = kind === 'goal' ? world.goals : world.pits;
  if (given) return given;
  if (!world.map) return [];
  const letters = kind === 'goal' ? 'G' : PITS;
  const found = world.cells.flatMap(([i, j], s) => (letters.includes(world.map[i][j]) ? [s] : []));
  return found.every((s) => world.done[s]) ? found : [];
}

/** A state as a reader knows it. */
function stateName(world, s) {
  if (world.states) return world.states[s];
  if (!world.cells) return `state ${s}`;
  return `row ${world.cells[s][0] + 1}, column ${world.cells[s][1] + 1}`;
}

// The address of the page keeps the state: a link, a reload and the way back show the same.

function address() {
  const found = new URLSearchParams();
  if (state.kind === 'ledge') found.set('map', 'ledge');
  if (state.kind === 'map')
    found.set(
      'map',
      Object.keys(MAPS).find((name) => MAPS[name].join() === state.map.join()) ?? state.map.join('/'),
    );
  for (const id of dialsOf(state.kind))
    if (id === 'eta' || state[id] !== startOf(id)) found.set(id, state[id]);
  if (state.kind === 'map' && state.windDirection !== 'down') found.set('windDirection', state.windDirection);
  if (state.t >= 0) found.set('t', state.t);
  for (const id of ['view', 'tour']) if (state[id] && state[id] !== 'optimism') found.set(id, state[id]);
  return `#${found}`;
}

/** Sets the state to that of an address; what cannot be read is left at its start, and said. */
function visitAddress(text) {
  const given = new URLSearchParams(text.replace(/^#/, '')),
    map = given.get('map');
  let problem = '';
  restart(TABLE ? 'table' : map === 'ledge' ? 'ledge' : 'map', TABLE || map === 'ledge' ? null : MAPS.cliff);
  if (state.kind === 'map' && map !== null) {
    try {
      origin = state.map = mapFrom(map);
    } catch (error) {
      problem = `The map in the address has ${error.message}; here is the cliff instead.`;
    }
  }
  for (const id of dialsOf(state.kind)) {
    if (!given.has(id)) continue;
    const x = Number(given.get(id)),
      { min, max, whole, least } = DIALS[id];
    if (given.get(id).trim() && Number.isFinite(x))
      state[id] = clamp(whole ? round(x) : x, least ?? min, max);
    else problem = `The address says ${id}=${given.get(id)}, which is no number.`;
  }
  if (given.get('windDirection') in DIRECTIONS) state.windDirection = given.get('windDirection');
  state.t = /^\d+$/.test(given.get('t') ?? '') ? Number(given.get('t')) : -1;
  state.view = given.get('view') ?? 'optimism';
  state.tour = !TABLE && TOUR[given.get('tour') - 1] ? Number(given.get('tour')) : 0;
  changed();
  if (problem) say(problem);
}

/** Writes the state into the address, and remembers for undo what was there before. */
function keep(discrete) {
  const now = address();
  if (now === here || playing) return;
  if (here) past.push(here);
  here = now;
  write(now, discrete);
  $('undo').disabled = !past.length;
}

function write(now, discrete) {
  try {
    history[discrete ? 'pushState' : 'replaceState'](null, '', now);
  } catch {
    // a frame without an address of its own
  }
}

function undo() {
  const now = address();
  if (now === here) here = past.pop() ?? here; // else back to where the hand last rested
  visitAddress(here);
  write(here, false);
}

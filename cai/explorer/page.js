// The page: its state, its buttons, the tour, and what a change redraws at once or when the hand rests.

const CALM = matchMedia('(prefers-reduced-motion: reduce)'),
  DARK = matchMedia('(prefers-color-scheme: dark)');
const REST = 250; // milliseconds after which a hand rests
const WORDS = { S: 'start', '.': 'free', '#': 'wall', G: 'goal', P: 'pit' };
const BRUSHES = { '.': 'free', '#': 'wall', P: 'pit', G: 'goal', S: 'start' };

const TOUR = [
  {
    map: 'ledge',
    set: {},
    say: 'A path leads home in three steps, a short cut along a ledge in one; half the time the ledge gives way. At η = 1 the agent conditions on success, and with it the ledge. Look at home and ravine: orange is imagined, blue is real.',
  },
  {
    map: 'ledge',
    set: { eta: 0 },
    say: 'The same at η = 0: the policy may adapt, but the ledge stays as it is. Orange equals blue, the agent mostly takes the path, and no policy has a higher ELBO.',
  },
  {
    map: 'cliff',
    set: { slip: 0 },
    say: 'A cliff, at η = 1 again, but nobody slips: nothing is left to chance, and the gap is gone. Now drag the slip to 0.1, and see how it counts on never slipping.',
  },
  {
    map: 'cliff',
    set: { slip: 0, gamma: 0.95 },
    say: 'No slip, but each step is survived with probability γ = 0.95 only, and nothing is paid afterwards. That is chance, too, and steps cost: at η = 1 it counts on ending early. Compare the two returns.',
  },
  {
    map: 'bridge',
    set: {},
    say: 'Your own map: choose what to paint with, and click on cells or drag. Wall off the bridge, move the goal: when does it take a risk at η = 1 that it would not take at η = 0?',
  },
];

const state = { kind: 'map', map: MAPS.cliff, windDirection: 'down', t: -1, view: 'optimism', tour: 0 };
const pictures = Object.fromEntries(['imagines', 'gets', 'third'].map((id) => [id, new MapPicture($(id))]));
const list = new StateList($('list')),
  curve = new Curve($('curve'));
let brush = 'P',
  result = null,
  origin = MAPS.cliff,
  past = [],
  here = '',
  scheme = null,
  playing;

function restart(kind, map = null) {
  Object.assign(state, { kind, map: map ?? null, windDirection: 'down', t: -1, view: 'optimism', tour: 0 });
  for (const id of Object.keys(DIALS)) state[id] = startOf(id, kind);
}

function button(place, text, act, attributes = {}) {
  const made = element('button', { type: 'button', ...attributes }, text);
  on(made, 'click', act);
  place.append(made);
  return made;
}

function makeControls() {
  for (const id of Object.keys(DIALS)) makeDial(id, id === 'eta' ? $('dial') : $('dials'), DIALS[id]);
  const winds = element(
    'select',
    { id: 'windDirection' },
    ...Object.keys(DIRECTIONS).map((name) => element('option', {}, name)),
  );
  on(winds, 'change', () => {
    state.windDirection = winds.value;
    changed(true);
  });
  document
    .querySelector('[data-dial=wind]')
    .after(
      element(
        'p',
        { class: 'row', id: 'winds' },
        element('label', { for: 'windDirection' }, 'the wind blows'),
        winds,
      ),
    );
  DIALS.t = { name: 'time', unit: '', min: -1, max: 1, step: 1, of: [], start: -1, whole: true };
  makeDial('t', $('time-dial'), DIALS.t);
  $('t-number').replaceWith(element('output', { id: 't-words', for: 't' }));
  for (const name of Object.keys(MAPS))
    button($('worlds'), name, () => enter('map', MAPS[name]), { 'data-world': name });
  button($('worlds'), 'the ledge', () => enter('ledge'), { 'data-world': 'ledge' });
  for (const [letter, name] of Object.entries(BRUSHES))
    button(
      $('brushes'),
      name,
      () => {
        brush = letter;
        showBrush();
      },
      { 'data-brush': letter },
    );
  TOUR.forEach((_, k) =>
    button($('stops'), `${k + 1}`, () => visit(k + 1), { 'aria-label': `step ${k + 1} of the tour` }),
  );
  on($('view'), 'change', () => {
    state.view = $('view').value;
    changed(true);
  });
  on($('play'), 'click', play);
  on($('undo'), 'click', undo);
  on($('reset'), 'click', () => enter(state.kind, state.kind === 'map' ? origin : null));
  on($('copy'), 'click', copy);
  for (const part of ['worlds-part', 'tour']) $(part).hidden = TABLE !== null;
  $('title').textContent = document.title;
  document.querySelector('article').classList.toggle('given', TABLE !== null);
  showBrush();
}

const showBrush = () => {
  for (const x of $('brushes').children) x.setAttribute('aria-pressed', x.dataset.brush === brush);
};

function enter(kind, map = null) {
  restart(kind, map);
  origin = map ?? origin;
  changed(true);
}

function visit(k) {
  const { map, set } = TOUR[k - 1];
  restart(map === 'ledge' ? map : 'map', MAPS[map]);
  origin = state.map ?? origin;
  Object.assign(state, set, { tour: k });
  changed(true);
}

// What changes, and what follows at once or when the hand rests

let waiting = false,
  resting = 0;
function changed(discrete = false) {
  say('');
  $('curve').classList.add('stale');
  if (!waiting) {
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      update();
    });
  }
  clearTimeout(resting);
  resting = setTimeout(rest, REST);
  if (discrete) keep(true);
}

const say = (text) => {
  $('message').textContent = text;
};

function worldNow() {
  if (state.kind === 'table') return TABLE.world;
  const key = JSON.stringify([
    state.kind,
    state.map,
    state.windDirection,
    ...['slip', 'wind', 'step', 'goal', 'pit', 'gives', 'fall'].map((id) => state[id]),
  ]);
  if (worldNow.key !== key) {
    worldNow.key = key;
    worldNow.kept = state.kind === 'ledge' ? ledge(state) : gridworld(state.map, state);
  }
  return worldNow.kept;
}

function update() {
  const began = performance.now(),
    { T, alpha, eta, gamma } = state;
  result = explore(worldNow(), { T, alpha, eta, gamma }, result);
  const solved = performance.now();
  state.t = clamp(state.t, -1, T);
  showControls();
  showPictures(result);
  showNumbers(result);
  curve.mark(eta);
  window.explorer = { state, result, milliseconds: [solved - began, performance.now() - solved] };
}

function rest() {
  keep(false);
  $('announcement').textContent =
    `${$('headline').textContent} ${$('explanation').textContent} ${$('kl-text').textContent}`;
  $('code').value = python();
  trace();
}

function showControls() {
  const shown = dialsOf(state.kind);
  for (const id of Object.keys(DIALS)) {
    if (id === 't') continue;
    refresh(id);
    document.querySelector(`[data-dial=${id}]`).hidden = !shown.includes(id);
  }
  $('winds').hidden = $('brushes-part').hidden = state.kind !== 'map';
  $('windDirection').value = state.windDirection;
  $('t').max = DIALS.t.max = state.T;
  $('t').value = state.t;
  const time = state.t < 0 ? 'all steps' : `t = ${state.t}`;
  $('t-words').textContent = time;
  $('t').setAttribute('aria-valuetext', time);
  $('play').textContent = CALM.matches ? 'next step' : playing ? 'pause' : 'play';
  $('undo').disabled = !past.length;
  for (const x of $('worlds').children)
    x.setAttribute(
      'aria-pressed',
      state.kind === 'ledge'
        ? x.dataset.world === 'ledge'
        : MAPS[x.dataset.world]?.join() === state.map?.join(),
    );
  for (const [k, x] of [...$('stops').children].entries())
    x.setAttribute('aria-current', k + 1 === state.tour ? 'step' : 'false');
  $('story').textContent = state.tour
    ? TOUR[state.tour - 1].say
    : 'Each step sets the dials and says what to look at.';
  const views = { optimism: 'the optimism of each state', V: 'values V' };
  worldNow().actions.forEach((name, a) => {
    views[`Q${a}`] = `Q of ${name}`;
  });
  if (!(state.view in views)) state.view = 'optimism';
  if (showControls.views !== JSON.stringify(views)) {
    showControls.views = JSON.stringify(views);
    $('view').replaceChildren(
      ...Object.entries(views).map(([value, text]) => element('option', { value }, text)),
    );
  }
  $('view').value = state.view;
}

/** From step to step by itself; one step a press where motion is not wanted. */
function play() {
  const next = () => {
    if (state.t < state.T) state.t += 1;
    else stop();
    changed();
  };
  const stop = () => {
    playing = clearInterval(playing);
  };
  if (playing) stop();
  else {
    if (state.t >= state.T) state.t = -1;
    if (!CALM.matches) playing = setInterval(next, 400);
    next();
  }
  changed();
}

makeControls();
for (const picture of Object.values(pictures)) listenTo(picture);
for (const name of ['start', 'actions', 'dynamics'])
  $('kl-legend').append(element('span', {}, element('i', { class: `swatch ${name}` }), name));
on(window, 'hashchange popstate', () => {
  if (location.hash === here) return;
  here = location.hash;
  visitAddress(here);
});
on(DARK, 'change', () => {
  scheme = null;
  changed();
});
on(CALM, 'change', () => changed());
visitAddress(location.hash);
keep(false);

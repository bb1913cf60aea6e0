// The dials: what can be set, from where to where, and the sliders and numbers that set it.

const TABLE = JSON.parse($('table').textContent);

// Dials: unit, range and step of the slider, the value at the start, and of which worlds (else all).
const CHANCE = { unit: 'probability', min: 0, max: 1, step: 0.01 };
const DIALS = {
  eta: { name: 'optimism η', unit: '', min: -2, max: 4, step: 0.05, start: 1, marks: [0, 1] },
  alpha: {
    name: 'temperature α',
    unit: 'reward per nat',
    min: 0.01,
    max: 10,
    step: 0.02,
    start: 0.5,
    log: true,
  },
  gives: { name: 'the ledge gives way', ...CHANCE, of: ['ledge'], start: 0.5 },
  slip: { name: 'slip', ...CHANCE, of: ['map'], start: 0.1 },
  wind: { name: 'wind', ...CHANCE, of: ['map'], start: 0 },
  T: { name: 'horizon T', unit: 'steps', min: 1, max: 100, step: 1, start: 30, whole: true },
  gamma: { name: 'survival γ', unit: 'per step', min: 0.5, max: 1, step: 0.01, start: 1, least: 1e-6 },
  step: { name: 'a step pays', unit: 'reward', min: -5, max: 1, step: 0.1, of: ['map'], start: -1 },
  goal: { name: 'a goal pays', unit: 'reward', min: -10, max: 50, step: 0.5, of: ['map'], start: 0 },
  pit: { name: 'a pit pays', unit: 'reward', min: -200, max: 0, step: 1, of: ['map'], start: -100 },
  fall: { name: 'a fall pays', unit: 'reward', min: -50, max: 0, step: 0.5, of: ['ledge'], start: -6 },
};
const LEDGE = { alpha: 1, T: 4 }; // where it starts otherwise
if (TABLE) {
  const { alpha, gamma, T } = TABLE,
    found = fromTable(TABLE);
  Object.assign(DIALS.alpha, { start: alpha, min: min(0.01, alpha), max: max(10, alpha) });
  Object.assign(DIALS.gamma, { start: gamma, min: min(0.5, gamma) });
  Object.assign(DIALS.T, { start: T, max: found.timed.size ? T : max(100, T) });
  TABLE.world = found;
}

const startOf = (id, kind = state.kind) => (kind === 'ledge' && id in LEDGE ? LEDGE[id] : DIALS[id].start);
const dialsOf = (kind) => Object.keys(DIALS).filter((id) => DIALS[id].of?.includes(kind) ?? true);
const clamp = (x, low, high) => min(high, max(low, x));

function makeDial(id, place, { name, unit, min, max, step, least = min, marks = [], log }) {
  const position = log ? [log10(min), log10(max)] : [min, max];
  const label = element('label', { for: id }, name, ' ', element('small', {}, unit));
  const range = element('input', { type: 'range', id, min: position[0], max: position[1], step });
  const number = element('input', {
    type: 'number',
    id: `${id}-number`,
    min: least,
    max,
    step: 'any',
    'aria-label': `${name}, as a number`,
  });
  const box = element('div', { class: 'dial', 'data-dial': id }, label, number, range);
  if (marks.length) {
    box.append(
      element(
        'div',
        { class: 'marks', 'aria-hidden': true },
        ...marks.map((x) => element('span', { style: `left:${(100 * (x - min)) / (max - min)}%` }, `${x}`)),
      ),
    );
    box.append(element('small', { id: `${id}-words` }));
  }
  let dragged = false;
  on(range, 'pointerdown', () => {
    dragged = true;
  });
  on(range, 'pointerup pointercancel keydown', () => {
    dragged = false;
  });
  on(range, 'input', () => {
    let x = log ? Number((10 ** range.value).toPrecision(3)) : Number(range.value);
    if (dragged) for (const mark of marks) if (abs(x - mark) < 0.08) x = mark; // marks attract a mouse
    turn(id, x);
  });
  on(number, 'change', () => turn(id, number.value === '' ? NaN : Number(number.value)));
  place.append(box);
}

/** Sets a dial to a number, within its range; what is no number is put back. */
function turn(id, x) {
  const { min, max, whole, least } = DIALS[id];
  if (Number.isFinite(x)) state[id] = clamp(whole ? round(x) : x, least ?? min, max);
  if (id !== 't') refresh(id);
  changed();
}

function refresh(id) {
  const { log, unit } = DIALS[id],
    x = state[id],
    range = $(id),
    text = String(Number(x.toPrecision(6)));
  range.value = log ? log10(x) : x;
  range.setAttribute('aria-valuetext', `${text} ${unit}`.trim());
  $(`${id}-number`).value = text;
  if (id === 'eta') {
    $('eta-words').textContent =
      x === 0
        ? 'true dynamics'
        : x === 1
          ? 'conditioned on success: p(τ | O)'
          : x < 0
            ? 'nature plays against it, at a price'
            : 'it believes in luck, at a price';
  }
}

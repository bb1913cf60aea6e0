// Pictures: maps with arrows, a list of states where there is no map, and the curve over optimism.

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';
const UNIT = 48; // of a cell, in the coordinates of a map
const LISTED = 60; // states at most, where there is no map
const MOST_CELLS = 2500; // of a map; a larger one is a list
const LEAST = 0.02; // probability of an action that is drawn
const CIVIDIS = ['#002b62', '#f3db42', '#686a71', '#c1b26a', '#3d4a6c', '#928d78'];
const fillOf = (a) => `background:${CIVIDIS[a % 6]}${a % 2 ? ' repeating-linear-gradient(45deg, #0006 0 1px, #0000 1px 6px)' : ''}`;

/** An element with attributes and children; texts are text, never HTML. */
function element(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, tag), attributes, children);
}

function dressed(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Calls a function at each of the events named in a text. */
function on(target, events, act) {
  for (const event of events.split(' ')) target.addEventListener(event, act);
}

/** Sets an attribute or a text only where it changes, which is what costs time. */
function put(node, name, value) {
  const kept = (node.kept ??= {});
  if (kept[name] === value) return;
  kept[name] = value;
  if (name === 'text') node.textContent = value;
  else node.setAttribute(name, value);
}

/** A number as it is read: three decimals, fewer if it is large; infinities and a real minus. */
function spell(x, digits = 3) {
  if (abs(x) === Infinity) return x > 0 ? '∞' : '−∞';
  if (abs(x) >= 1e6) return x.toExponential(2).replace('-', '−').replace('e+', 'e');
  const text = x.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace('-', '−');
}

function percent(share) {
  return share < 5e-4 ? '' : share < 0.005 ? '<1' : (100 * share).toFixed(0);
}

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const linear = (x) => (x <= 10.31 ? x / 3294.6 : ((x / 255 + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);

/** 65 shades from the paper to a colour, each with the ink that is legible on it. */
function ramp(colour, paper) {
  const [low, high] = [channels(paper), channels(colour)];
  return times(65, (k) => {
    const mixed = low.map((x, i) => round(x + (k / 64) * (high[i] - x)));
    const dark = luminance(mixed) > 0.179; // where black and white are equally legible
    return { fill: `rgb(${mixed})`, ink: dark ? '#000' : '#fff' };
  });
}

/** A map: a button for each cell, its letter, a number, and an arrow for each move. */
class MapPicture {
  constructor(svg) {
    this.svg = svg;
    this.rows = this.columns = 0;
    this.cells = [];
    on(svg, 'keydown', (event) => this.walk(event));
  }

  build(rows, columns) {
    if (rows === this.rows && columns === this.columns) return;
    const id = `hatch-${this.svg.id}`;
    Object.assign(this, { rows, columns, cells: [] });
    this.svg.setAttribute('viewBox', `-2 -2 ${columns * UNIT + 4} ${rows * UNIT + 4}`);
    const hatch = shape('pattern', { id, width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      shape('rect', { width: 7, height: 7, fill: 'var(--line)' }), shape('rect', { width: 2.5, height: 7, fill: 'var(--rim)' }));
    const below = shape('g'), above = shape('g');
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        const [x, y] = [j * UNIT, i * UNIT], n = i * columns + j;
        const rect = shape('rect', { x, y, width: UNIT, height: UNIT, role: 'button', tabindex: n ? -1 : 0, 'data-cell': `${i},${j}` });
        const letter = shape('text', { x: x + 3, y: y + 14, 'font-weight': 600 });
        const number = shape('text', { x: x + UNIT - 3, y: y + UNIT - 5, 'text-anchor': 'end' });
        const arrow = shape('path', { fill: 'none', 'stroke-width': 2, class: 'arrow' }), dot = shape('path', { class: 'dot' });
        below.append(rect);
        above.append(arrow, dot, letter, number);
        this.cells.push({ rect, letter, number, arrow, dot });
      }
    }
    this.svg.classList.toggle('wide', columns > 8);
    this.hatch = `url(#${id})`;
    this.svg.replaceChildren(shape('defs', {}, hatch), below, above);
  }

  /** Arrow keys go from cell to cell; only one of them is reached by Tab. */
  walk(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const at = event.target.dataset?.cell?.split(',').map(Number);
    if (!step || !at) return;
    event.preventDefault();
    const [i, j] = [at[0] + step[0], at[1] + step[1]];
    if (i < 0 || j < 0 || i >= this.rows || j >= this.columns) return;
    event.target.setAttribute('tabindex', -1);
    const { rect } = this.cells[i * this.columns + j];
    rect.setAttribute('tabindex', 0);
    rect.focus();
  }

  /** The cell at a place of the window, "row,column", or null. */
  cellAt(x, y) {
    const box = this.svg.getScreenCTM(), point = new DOMPoint(x, y).matrixTransform(box.inverse());
    const [i, j] = [floor(point.y / UNIT), floor(point.x / UNIT)];
    return i >= 0 && j >= 0 && i < this.rows && j < this.columns ? [i, j] : null;
  }

  /** Draws what pictureOf() has found: shades and numbers of cells, labels, and moves. */
  draw({ letters, shades, numbers, labels, colours, paper, moves }) {
    this.cells.forEach(({ rect, letter, number, arrow, dot }, n) => {
      const wall = letters[n] === '#', { fill, ink } = wall ? { fill: this.hatch, ink: '#000' } : colours[shades[n]] ?? paper;
      put(rect, 'fill', fill);
      put(rect, 'aria-label', labels[n]);
      put(letter, 'text', '#.F'.includes(letters[n]) ? '' : letters[n]);
      put(letter, 'fill', ink);
      put(number, 'text', numbers[n]);
      put(number, 'fill', ink);
      const { lines, dots, seen } = moves?.[n] ?? { lines: '', dots: '', seen: true };
      put(arrow, 'd', lines);
      put(dot, 'd', dots);
      if (lines) put(arrow, 'stroke', seen ? ink : 'var(--unseen)');
      if (dots) put(dot, 'fill', seen ? ink : 'var(--unseen)');
    });
  }
}

/** The path of an arrow of a length from the middle of a cell, in units of cells. */
function arrowPath(i, j, [di, dj], length) {
  const size = hypot(di, dj), [u, w] = [dj / size, di / size], [x, y] = [(j + 0.5) * UNIT, (i + 0.5) * UNIT];
  const n = 0.46 * UNIT * length, h = 1 + 6 * length, [ex, ey] = [x + n * u, y + n * w].map((z) => z.toFixed(1));
  const head = (side) => `${(+ex + h * (-u + side * 0.7 * w)).toFixed(1)} ${(+ey + h * (-w - side * 0.7 * u)).toFixed(1)}`;
  return `M${x} ${y}L${ex} ${ey}M${head(1)}L${ex} ${ey}L${head(-1)}`;
}

function dotPath(i, j, share) {
  const r = 0.2 * UNIT * sqrt(share);
  return `M${(j + 0.5) * UNIT - r} ${(i + 0.5) * UNIT}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
}

/** States as rows of a table: a name, two bars, the policy as a stacked bar, and a value. */
class StateList {
  constructor(place) {
    this.place = place;
    this.rows = [];
  }

  build(actions, count) {
    const key = JSON.stringify([actions, count]);
    if (key === this.key) return;
    this.key = key;
    const head = (text, name = '') => element('th', { scope: 'col', class: name }, text);
    this.head = head('');
    this.rows = times(count, () => {
      const name = element('th', { scope: 'row' }), value = element('td');
      const bars = ['imagines', 'gets'].map((kind) => {
        const fill = element('i'), output = element('span');
        return { fill, output, box: element('div', { class: `cell ${kind}` }, element('div', { class: 'bar' }, fill), output) };
      });
      const parts = actions.map((_, a) => element('span'));
      const policy = element('div', { class: 'policy', role: 'img' }, ...parts);
      const row = element('tr', {}, name, ...bars.map(({ box }) => element('td', {}, box)), element('td', {}, policy), value);
      return { row, name, bars, parts, policy, value };
    });
    const legend = element('p', { class: 'row quiet' }, 'policy:');
    actions.forEach((action, a) => legend.append(element('span', {}, element('i', { class: 'swatch', style: fillOf(a) }), action)));
    const top = element('tr', {}, head('state'), head('imagines', 'imagined'), head('gets', 'real'), head('policy'), this.head);
    this.place.replaceChildren(legend, element('table', {}, element('thead', {}, top), element('tbody', {}, ...this.rows.map(({ row }) => row))));
  }

  draw(states, title) {
    put(this.head, 'text', title);
    states.forEach((state, n) => {
      const { row, name, bars, parts, policy, value } = this.rows[n];
      put(name, 'text', state.name);
      put(row, 'data-state', state.index);
      put(value, 'text', state.value);
      state.shares.forEach((share, k) => {
        put(bars[k].fill, 'style', `width:${(100 * min(1, share / state.top)).toFixed(2)}%`);
        put(bars[k].output, 'text', `${(100 * share).toFixed(1)} %`);
      });
      put(policy, 'class', state.done ? 'policy done' : state.seen ? 'policy' : 'policy never');
      put(policy, 'aria-label', state.words);
      put(policy, 'title', state.words);
      parts.forEach((part, a) => put(part, 'style', `${fillOf(a)};width:${(100 * state.policy[a]).toFixed(2)}%`));
    });
  }
}

/** Bound and ELBO against η from -2 to 4, and where the dial stands. */
class Curve {
  constructor(svg) {
    this.svg = svg;
    this.box = { left: 52, right: 452, top: 12, bottom: 172 };
  }

  x(eta) {
    return this.box.left + ((eta + 2) / 6) * (this.box.right - this.box.left);
  }

  /** @param points of η, the bound and the ELBO, which may be infinite. */
  draw(points, eta) {
    const { left, right, top, bottom } = this.box, finite = points.flatMap(([, ...ys]) => ys).filter(Number.isFinite);
    const parts = [];
    for (let e = -2; e <= 4; e++) {
      parts.push(shape('line', { x1: this.x(e), x2: this.x(e), y1: top, y2: bottom, stroke: 'var(--line)' }));
      parts.push(shape('text', { x: this.x(e), y: bottom + 15, 'text-anchor': 'middle' }, spell(e, 0)));
    }
    parts.push(shape('text', { x: right, y: bottom + 32, 'text-anchor': 'end' }, 'optimism η'));
    if (finite.length) {
      let [low, high] = [min(...finite), max(...finite)];
      if (high - low < 1e-6) [low, high] = [low - 1, high + 1];
      const room = 0.04 * (high - low), y = (z) => top + ((high + room - z) / (high - low + 2 * room)) * (bottom - top);
      const step = 10 ** floor(log10((high - low) / 6)), every = [1, 2, 5, 10].map((k) => k * step).find((x) => (high - low) / x <= 6);
      for (let z = ceil(low / every) * every; z <= high; z += every) {
        parts.push(shape('line', { x1: left, x2: right, y1: y(z), y2: y(z), stroke: 'var(--line)' }));
        parts.push(shape('text', { x: left - 6, y: y(z) + 4, 'text-anchor': 'end' }, spell(z, every < 1 ? ceil(-log10(every)) : 0)));
      }
      for (const [k, kind, dash] of [[1, 'imagined', '7 3'], [2, 'real', 'none']]) {
        const shown = points.filter((point) => Number.isFinite(point[k]));
        const at = shown.map((point) => `${this.x(point[0]).toFixed(1)},${y(point[k]).toFixed(1)}`).join(' ');
        parts.push(shape('polyline', { points: at, fill: 'none', stroke: `var(--${kind}-line)`, 'stroke-width': 2.5, 'stroke-dasharray': dash, class: `curve-${kind}` }));
        const word = kind === 'real' ? 'ELBO (nats)' : 'bound (nats)';
        parts.push(shape('text', { x: left + (k - 1) * 130, y: bottom + 32, class: kind, 'font-weight': 600 }, `${kind === 'real' ? '—' : '- -'} ${word}`));
      }
    }
    this.now = shape('line', { y1: top, y2: bottom, stroke: 'var(--ink)', 'stroke-width': 1.5, 'stroke-dasharray': '2 2' });
    this.svg.replaceChildren(...parts, this.now);
    this.mark(eta);
    this.svg.classList.remove('stale');
  }

  mark(eta) {
    if (!this.now) return;
    this.now.setAttribute('x1', this.x(eta));
    this.now.setAttribute('x2', this.x(eta));
  }
}

// Elements, numbers as they are read, shades, and maps with arrows.

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';
const UNIT = 48; // of a cell, in the coordinates of a map
const MOST_CELLS = 2500; // of a map; a larger one is a list
const LEAST = 0.02; // probability of an action that is drawn

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
    const hatch = shape(
      'pattern',
      { id, width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      shape('rect', { width: 7, height: 7, fill: 'var(--line)' }),
      shape('rect', { width: 2.5, height: 7, fill: 'var(--rim)' }),
    );
    const below = shape('g'),
      above = shape('g');
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        const [x, y] = [j * UNIT, i * UNIT],
          n = i * columns + j;
        const rect = shape('rect', {
          x,
          y,
          width: UNIT,
          height: UNIT,
          role: 'button',
          tabindex: n ? -1 : 0,
          'data-cell': `${i},${j}`,
        });
        const letter = shape('text', { x: x + 3, y: y + 14, 'font-weight': 600 });
        const number = shape('text', { x: x + UNIT - 3, y: y + UNIT - 5, 'text-anchor': 'end' });
        const arrow = shape('path', { fill: 'none', 'stroke-width': 2, class: 'arrow' }),
          dot = shape('path', { class: 'dot' });
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
    const box = this.svg.getScreenCTM(),
      point = new DOMPoint(x, y).matrixTransform(box.inverse());
    const [i, j] = [floor(point.y / UNIT), floor(point.x / UNIT)];
    return i >= 0 && j >= 0 && i < this.rows && j < this.columns ? [i, j] : null;
  }

  /** Draws what pictureOf() has found: shades and numbers of cells, labels, and moves. */
  draw({ letters, shades, numbers, labels, colours, paper, moves }) {
    this.cells.forEach(({ rect, letter, number, arrow, dot }, n) => {
      const wall = letters[n] === '#',
        { fill, ink } = wall ? { fill: this.hatch, ink: '#000' } : (colours[shades[n]] ?? paper);
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
  const size = hypot(di, dj),
    [u, w] = [dj / size, di / size],
    [x, y] = [(j + 0.5) * UNIT, (i + 0.5) * UNIT];
  const n = 0.46 * UNIT * length,
    h = 1 + 6 * length,
    [ex, ey] = [x + n * u, y + n * w].map((z) => z.toFixed(1));
  const head = (side) =>
    `${(+ex + h * (-u + side * 0.7 * w)).toFixed(1)} ${(+ey + h * (-w - side * 0.7 * u)).toFixed(1)}`;
  return `M${x} ${y}L${ex} ${ey}M${head(1)}L${ex} ${ey}L${head(-1)}`;
}

function dotPath(i, j, share) {
  const r = 0.2 * UNIT * sqrt(share);
  return `M${(j + 0.5) * UNIT - r} ${(i + 0.5) * UNIT}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
}

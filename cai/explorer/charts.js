// Pictures without a map: a list of states, and the curve over optimism.

const LISTED = 60; // states at most, where there is no map
const CIVIDIS = ['#002b62', '#f3db42', '#686a71', '#c1b26a', '#3d4a6c', '#928d78'];
const fillOf = (a) =>
  `background:${CIVIDIS[a % 6]}${a % 2 ? ' repeating-linear-gradient(45deg, #0006 0 1px, #0000 1px 6px)' : ''}`;

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
      const name = element('th', { scope: 'row' }),
        value = element('td');
      const bars = ['imagines', 'gets'].map((kind) => {
        const fill = element('i'),
          output = element('span');
        return {
          fill,
          output,
          box: element('div', { class: `cell ${kind}` }, element('div', { class: 'bar' }, fill), output),
        };
      });
      const parts = actions.map((_, a) => element('span'));
      const policy = element('div', { class: 'policy', role: 'img' }, ...parts);
      const row = element(
        'tr',
        {},
        name,
        ...bars.map(({ box }) => element('td', {}, box)),
        element('td', {}, policy),
        value,
      );
      return { row, name, bars, parts, policy, value };
    });
    const legend = element('p', { class: 'row quiet' }, 'policy:');
    actions.forEach((action, a) =>
      legend.append(element('span', {}, element('i', { class: 'swatch', style: fillOf(a) }), action)),
    );
    const top = element(
      'tr',
      {},
      head('state'),
      head('imagines', 'imagined'),
      head('gets', 'real'),
      head('policy'),
      this.head,
    );
    this.place.replaceChildren(
      legend,
      element(
        'table',
        {},
        element('thead', {}, top),
        element('tbody', {}, ...this.rows.map(({ row }) => row)),
      ),
    );
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
      parts.forEach((part, a) =>
        put(part, 'style', `${fillOf(a)};width:${(100 * state.policy[a]).toFixed(2)}%`),
      );
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
    const { left, right, top, bottom } = this.box,
      finite = points.flatMap(([, ...ys]) => ys).filter(Number.isFinite);
    const parts = [];
    for (let e = -2; e <= 4; e++) {
      parts.push(shape('line', { x1: this.x(e), x2: this.x(e), y1: top, y2: bottom, stroke: 'var(--line)' }));
      parts.push(shape('text', { x: this.x(e), y: bottom + 15, 'text-anchor': 'middle' }, spell(e, 0)));
    }
    parts.push(shape('text', { x: right, y: bottom + 32, 'text-anchor': 'end' }, 'optimism η'));
    if (finite.length) {
      let [low, high] = [min(...finite), max(...finite)];
      if (high - low < 1e-6) [low, high] = [low - 1, high + 1];
      const room = 0.04 * (high - low),
        y = (z) => top + ((high + room - z) / (high - low + 2 * room)) * (bottom - top);
      const step = 10 ** floor(log10((high - low) / 6)),
        every = [1, 2, 5, 10].map((k) => k * step).find((x) => (high - low) / x <= 6);
      for (let z = ceil(low / every) * every; z <= high; z += every) {
        parts.push(shape('line', { x1: left, x2: right, y1: y(z), y2: y(z), stroke: 'var(--line)' }));
        parts.push(
          shape(
            'text',
            { x: left - 6, y: y(z) + 4, 'text-anchor': 'end' },
            spell(z, every < 1 ? ceil(-log10(every)) : 0),
          ),
        );
      }
      for (const [k, kind, dash] of [
        [1, 'imagined', '7 3'],
        [2, 'real', 'none'],
      ]) {
        const shown = points.filter((point) => Number.isFinite(point[k]));
        const at = shown.map((point) => `${this.x(point[0]).toFixed(1)},${y(point[k]).toFixed(1)}`).join(' ');
        parts.push(
          shape('polyline', {
            points: at,
            fill: 'none',
            stroke: `var(--${kind}-line)`,
            'stroke-width': 2.5,
            'stroke-dasharray': dash,
            class: `curve-${kind}`,
          }),
        );
        const word = kind === 'real' ? 'ELBO (nats)' : 'bound (nats)';
        parts.push(
          shape(
            'text',
            { x: left + (k - 1) * 130, y: bottom + 32, class: kind, 'font-weight': 600 },
            `${kind === 'real' ? '—' : '- -'} ${word}`,
          ),
        );
      }
    }
    this.now = shape('line', {
      y1: top,
      y2: bottom,
      stroke: 'var(--ink)',
      'stroke-width': 1.5,
      'stroke-dasharray': '2 2',
    });
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

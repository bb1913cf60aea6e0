// Painting on a map, and what the page says of the cell under the mouse or the focus.

const MOST_ROWS = 40; // and columns, of a map in an address

/** The rows of a map as an address holds them, or an error that says what is wrong with them. */
function mapFrom(text) {
  const rows = MAPS[text] ?? text.split('/');
  if (rows.length > MOST_ROWS || rows[0].length > MOST_ROWS)
    throw new Error(`more than ${MOST_ROWS} rows or columns`);
  if (!rows[0].length || rows.some((row) => row.length !== rows[0].length))
    throw new Error('rows of different lengths');
  if (!/^[S.#GP]+$/.test(rows.join(''))) throw new Error('letters other than S . # G P');
  if (!rows.join('').includes('S')) throw new Error('no start S');
  return rows;
}

/** Paints a cell; false if it may not be. */
function paint([i, j]) {
  if (state.kind !== 'map' || state.map[i][j] === brush) return false;
  const rows = state.map.map((row) => [...row]);
  rows[i][j] = brush;
  if (!rows.flat().includes('S')) {
    say('A map needs a start: paint another one first.');
    return false;
  }
  state.map = rows.map((row) => row.join(''));
  changed();
  return true;
}

/** All cells on the line between two, so that a quick hand leaves no gap. */
function between([i, j], [k, l]) {
  const n = max(abs(k - i), abs(l - j), 1);
  return times(n + 1, (m) => [round(i + ((k - i) * m) / n), round(j + ((l - j) * m) / n)]);
}

function cellOf(event) {
  return event.target.dataset?.cell?.split(',').map(Number);
}

function listenTo(picture) {
  const { svg } = picture;
  let last = null,
    painted = false,
    finger = false;
  on(svg, 'pointerdown', (event) => {
    finger = event.pointerType === 'touch'; // which scrolls, and paints by a tap
    if (event.button !== 0 || finger || state.kind !== 'map') return;
    last = picture.cellAt(event.clientX, event.clientY);
    if (!last) return;
    painted = paint(last);
    svg.setPointerCapture(event.pointerId);
  });
  on(svg, 'pointermove', (event) => {
    const cell = picture.cellAt(event.clientX, event.clientY);
    if (cell) describe(picture, cell);
    if (!last || !cell) return;
    for (const each of between(last, cell)) painted = paint(each) || painted;
    last = cell;
  });
  on(svg, 'pointerup pointercancel', () => {
    if (painted) keep(true);
    last = null;
    painted = false;
  });
  on(svg, 'click', (event) => {
    const cell = picture.cellAt(event.clientX, event.clientY);
    if (finger && cell && paint(cell)) keep(true);
    if (cell) describe(picture, cell, state.kind !== 'map');
  });
  on(svg, 'keydown', (event) => {
    const cell = cellOf(event);
    if (!cell || (event.key !== 'Enter' && event.key !== ' ')) return;
    event.preventDefault();
    if (paint(cell)) keep(true);
    describe(picture, cell, state.kind !== 'map');
  });
  on(svg, 'focusin', (event) => {
    if (cellOf(event)) describe(picture, cellOf(event));
  });
}

/** Says below the pictures what a cell shows, aloud if somebody pressed it. */
function describe({ cells, columns }, [i, j], aloud = false) {
  const text = cells[i * columns + j].rect.getAttribute('aria-label');
  $('details').textContent = text;
  if (aloud) $('announcement').textContent = text;
}

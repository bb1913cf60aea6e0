// What a solution says in numbers and words, the curve over optimism, and the lines of Python.

const short = (x) => String(Number(x.toPrecision(3))).replace('-', '−');

/** The headline: on how much luck it counts, and a sentence that says what that means. */
function headlineOf({ setting: { eta, T }, it, exact, imagined, real, gap }) {
  const returns = `a return of ${spell(imagined.income, 2)}`,
    gets = spell(real.income, 2);
  if (exact.bound === -Infinity) {
    return [
      'p(O) = 0: there is nothing to condition on.',
      `Within ${T} steps no trajectory avoids a reward of −∞. Make such rewards finite, or the horizon longer.`,
    ];
  }
  if (it.bound === -Infinity)
    return [
      'It fears the worst: its bound is −∞.',
      `At η = ${short(eta)} it expects to meet a reward of −∞, whatever it does.`,
    ];
  if (eta === 0)
    return [
      'It counts on no luck.',
      `At η = 0 the dynamics stay as they are: what it imagines is what it gets, ${returns}.`,
    ];
  if (abs(gap) < 5e-4)
    return [
      'There is no luck to count on.',
      `Where it goes nothing is left to chance: it gets what it imagines, ${returns}.`,
    ];
  const how =
    eta === 1
      ? 'it conditions on success'
      : eta > 0
        ? 'it believes in luck, at a price'
        : 'nature plays against it';
  const nats = spell(abs(gap), abs(gap) < 0.05 ? 3 : 1);
  const words = gap > 0 ? `It counts on ${nats} nats of luck.` : `It fears ${nats} nats of bad luck.`;
  return [words, `At η = ${short(eta)} ${how}: it imagines ${returns}, and gets ${gets}.`];
}

function showNumbers(found) {
  const {
      world,
      setting: { T, gamma },
      it,
      exact,
      imagined,
      real,
      kl,
    } = found,
    { S } = world;
  [$('headline').textContent, $('explanation').textContent] = headlineOf(found);
  const ends = (states, kind) => finals(world, kind).reduce((sum, s) => sum + states[T * S + s], 0);
  const rows = [
    ['bound, and ELBO (nats)', it.bound, real.elbo, 'elbo'],
    ['return (reward units)', imagined.income, real.income, 'return'],
  ];
  const alive = gamma < 1 ? ', alive' : '';
  for (const [kind, words] of [
    ['goal', world.goals ? 'home' : 'at a goal'],
    ['pit', world.pits ? 'in the ravine' : 'in a pit'],
  ]) {
    if (finals(world, kind).length)
      rows.push([
        `P(${words} at the end${alive})`,
        ends(imagined.states, kind),
        ends(real.states, kind),
        kind,
      ]);
  }
  $('numbers').tBodies[0].replaceChildren(
    ...rows.map(([words, ...pair]) => {
      const name = pair.pop(),
        cells = pair.map((x, k) =>
          element('td', { 'data-number': `${name}-${k ? 'real' : 'imagined'}`, 'data-value': x }, spell(x)),
        );
      return element('tr', {}, element('th', { scope: 'row' }, words), ...cells);
    }),
  );
  const parts = ['start', 'actions', 'dynamics'],
    total = kl.start + kl.actions + kl.dynamics;
  const weight = (x) => (total === Infinity ? (x === Infinity ? 1 : 0) : max(0, x) / (total || 1));
  $('kl').replaceChildren(
    ...parts.map((name) =>
      element('span', {
        class: name,
        style: `width:${(100 * weight(kl[name])).toFixed(2)}%`,
        'data-part': name,
        'data-value': kl[name],
      }),
    ),
  );
  $('kl-text').textContent =
    exact.bound === -Infinity
      ? 'log p(O) = −∞: there is no posterior to compare with.'
      : `log p(O) = ${spell(exact.bound)} = ELBO ${spell(real.elbo)} + start ${spell(kl.start)} + actions ${spell(kl.actions)} + dynamics ${spell(kl.dynamics)} nats`;
  $('kl').hidden = $('kl-legend').hidden = exact.bound === -Infinity || total < 5e-10;
}

/** The curve, a few points at a time, so that a hand that moves again need not wait. */
function trace() {
  const { world, setting } = result,
    points = [],
    job = (trace.job = {});
  const key = ['T', 'alpha', 'gamma'].map((name) => setting[name]).join();
  if (trace.world === world && trace.key === key) {
    $('curve').classList.remove('stale');
    return;
  }
  const more = () => {
    if (trace.job !== job) return; // another curve has begun
    const until = performance.now() + 12;
    while (points.length < 31 && performance.now() < until) {
      const solution = solve(world, { ...setting, eta: (points.length - 10) / 5 });
      points.push([solution.setting.eta, solution.bound, chain(world, solution, false).elbo]);
    }
    if (points.length < 31) {
      setTimeout(more);
      return;
    }
    Object.assign(trace, { world, key, points });
    curve.draw(points, state.eta);
  };
  more();
}

/** Lines of Python that give the numbers of the page with the library. */
function python() {
  const { alpha, eta, T, gamma } = state,
    shared = `horizon=${T}, temperature=${alpha}, discount=${gamma}`;
  const head = ['import cai', 'from cai import inference, models'];
  let made;
  if (state.kind === 'ledge')
    made = [`model = models.ledge(${shared}, gives_way=${state.gives}, fall_reward=${state.fall})`];
  else if (state.kind === 'map') {
    made = [
      'model = models.gridworld(',
      `    [${state.map.map((row) => `"${row}"`).join(', ')}],`,
      `    ${shared},`,
      `    slip=${state.slip}, wind=${state.wind}, wind_direction="${state.windDirection}",`,
      `    step_reward=${state.step}, goal_reward=${state.goal}, pit_reward=${state.pit},`,
      ')',
    ];
  } else {
    head.unshift('import dataclasses', '');
    made = [TABLE.recipe || '# model: the one that this page was made of'];
    if (!TABLE.world.timed.size) made.push(`model = dataclasses.replace(model, ${shared})`);
    else
      made.push(
        `table = cai.tabulate(model).at(slice(0, ${T}))  # the first steps`,
        `model = dataclasses.replace(table, temperature=${alpha}, discount=${gamma})`,
      );
  }
  return [
    ...head,
    '',
    ...made,
    `solution = inference.soft_values(model, optimism=${eta})`,
    'report = cai.compare(model, {"from the page": solution})',
    'print(report)',
    '',
  ].join('\n');
}

async function copy() {
  $('python').open = true;
  $('code').value = python();
  $('code').select();
  try {
    await navigator.clipboard.writeText($('code').value);
  } catch {
    // not where the browser forbids it, as in a frame
    document.execCommand('copy');
  }
  $('copy').textContent = 'copied';
  setTimeout(() => {
    $('copy').textContent = 'Copy as Python';
  }, 1500);
}

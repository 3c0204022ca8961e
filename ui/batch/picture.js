// The map of a batch. Runs inside gr.HTML with element, props, trigger and watch; the DOM is built
// with textContent alone. Lines are drawn anew only where their data changed.
const root = element.querySelector('.rm-map');
const tools = root.querySelector('.tools');
const frame = root.querySelector('.frame');
const heads = root.querySelector('.heads');
const stripes = root.querySelector('.stripes');
const lines = root.querySelector('.lines');
const group = root.querySelector('.group');
const compact = root.querySelector('.compact');
const make = window.ramoleMake;
const MANY = 60; // lines above which the picture is compact unless told otherwise
const SIGNS = { waits: '○', runs: '▸', answered: '✓', refused: '✕', stopped: '■' };
let shown = { run: null, columns: '', lines: new Map() };
const SKETCH = ['7.2...', '.45...', '..91..', '2...7.', '.3.6..', '....28'];
let told = null; // what the reader said about compact

function words(line, columns) {
  const used = line.c.map(([c, w]) => columns[c].name + (w === null ? '' : ' ' + w.toFixed(2)));
  const adapters = used.length ? used.join(', ') : line.s === 'answered' ? 'no adapter' : 'adapters not known yet';
  return 'Request ' + line.n + ', ' + line.s + (line.s === 'refused' ? '' : ': ' + adapters) + '. ' + line.t;
}

function drawHeads(columns) {
  heads.replaceChildren(make('span', 'corner', 'requests ↓   adapters →'));
  stripes.replaceChildren();
  columns.forEach((column, c) => {
    const head = make('span', 'head');
    head.style.gridColumn = c + 2;
    head.title = column.name + ': ' + column.uses + (column.uses === 1 ? ' request' : ' requests');
    head.append(make('b', '', column.name), make('i', '', column.uses));
    heads.append(head);
    const stripe = make('i');
    stripe.style.gridColumn = c + 2;
    stripes.append(stripe);
  });
  root.style.setProperty('--columns', Math.max(columns.length, 1));
}

function drawLine(line, columns) {
  const node = make('div', 'line ' + line.s);
  node.setAttribute('role', 'option');
  node.setAttribute('aria-selected', 'false');
  node.setAttribute('aria-label', words(line, columns));
  node.title = words(line, columns);
  node.tabIndex = -1;
  node.dataset.n = line.n;
  const label = make('span', 'label');
  label.append(make('i', 'sign', SIGNS[line.s]), make('b', '', line.n), make('span', '', line.t));
  node.append(label);
  for (const [c, share] of line.c) {
    const cell = make('i', share === null ? 'cell known' : 'cell');
    cell.style.gridColumn = c + 2;
    if (share !== null) {
      const full = Math.min(Math.max(share, 0), 1);
      const ink = Math.round(12 + 88 * full);
      cell.style.setProperty('--full', ink + '%');
      const level = ink > 91 ? 'high' : ink > 62 ? 'middle' : 'low'; // which text reads on it
      cell.append(make('span', level, share.toFixed(2).replace(/^0/, '')));
    }
    node.append(cell);
  }
  return node;
}

function order(value) {
  const place = (line) => {
    if (!line.c.length) return [value.columns.length, 0];
    const best = line.c.reduce((a, b) => ((b[1] ?? 0) > (a[1] ?? 0) ? b : a));
    return [best[0], -(best[1] ?? 0)];
  };
  if (group.getAttribute('aria-pressed') !== 'true') return value.rows;
  return [...value.rows].sort((a, b) => {
    const [x, y] = [place(a), place(b)];
    return x[0] - y[0] || x[1] - y[1] || a.n - b.n;
  });
}

function draw() {
  const value = props.value;
  if (!value) return;
  const columns = JSON.stringify(value.columns.map((column) => column.name));
  if (shown.run !== value.run) {
    shown = { run: value.run, columns: '', lines: new Map() };
    lines.replaceChildren();
    told = null;
  }
  const dense = told ?? value.rows.length > MANY;
  compact.setAttribute('aria-pressed', String(dense));
  root.classList.toggle('dense', dense);
  drawHeads(value.columns);
  const held = document.activeElement?.closest?.('.line')?.dataset.n;
  const wanted = order(value).map((line) => {
    const key = JSON.stringify(line);
    const old = shown.lines.get(line.n);
    if (old && old.key === key && shown.columns === columns) return old.node;
    const node = drawLine(line, value.columns);
    if (old) {
      node.setAttribute('aria-selected', old.node.getAttribute('aria-selected'));
      node.tabIndex = old.node.tabIndex;
    }
    shown.lines.set(line.n, { key, node });
    return node;
  });
  if (wanted.length !== lines.children.length || wanted.some((node, i) => lines.children[i] !== node)) {
    lines.replaceChildren(...wanted);
  }
  shown.columns = columns;
  if (wanted.length && !lines.querySelector('[tabindex="0"]')) wanted[0].tabIndex = 0;
  if (held) shown.lines.get(Number(held))?.node.focus({ preventScroll: true });
  tools.hidden = frame.hidden = !value.rows.length;
  root.querySelector('.empty').hidden = Boolean(value.rows.length);
  root.querySelector('.empty p').textContent = value.empty;
  root.querySelector('figcaption').textContent = value.said;
}

function pick(node) {
  if (!node || !node.classList.contains('line')) return;
  for (const other of lines.querySelectorAll('[aria-selected="true"], [tabindex="0"]')) {
    other.setAttribute('aria-selected', 'false');
    other.tabIndex = -1;
  }
  node.setAttribute('aria-selected', 'true');
  node.tabIndex = 0;
  node.focus({ preventScroll: true });
  node.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  trigger('select', { n: Number(node.dataset.n), run: shown.run });
}

lines.addEventListener('click', (event) => pick(event.target.closest('.line')));
lines.addEventListener('keydown', (event) => {
  const node = event.target.closest('.line');
  if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = [...lines.children];
  const at = all.indexOf(node);
  const goals = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: all.length - 1, Enter: at, ' ': at };
  if (!(event.key in goals)) return;
  event.preventDefault();
  pick(all[Math.min(Math.max(goals[event.key], 0), all.length - 1)]);
});
group.addEventListener('click', () => {
  group.setAttribute('aria-pressed', String(group.getAttribute('aria-pressed') !== 'true'));
  draw();
});
compact.addEventListener('click', () => {
  told = compact.getAttribute('aria-pressed') !== 'true';
  draw();
});

for (const cells of SKETCH) {
  const line = make('div', 'line');
  for (const cell of ['label', ...cells]) {
    const node = make('i', cell === 'label' ? 'label' : 'cell');
    if (cell !== 'label') node.style.setProperty('--full', cell === '.' ? '0%' : cell + '0%');
    line.append(node);
  }
  root.querySelector('.sketch').append(line);
}
watch('value', draw);
draw();

// The answer token by token. Runs inside gr.HTML with element, props, trigger and watch; the DOM is
// built with textContent alone, so token text can never become markup.
const root = element.querySelector('.tokens');
const copy = root.querySelector('.copy');
const legend = root.querySelector('.legend');
const meaning = root.querySelector('.meaning');
const text = root.querySelector('.text');
let shown = { run: null, tokens: [] };
let read = { text: '', tokens: [] };
let timer = null;
const make = window.ramoleMake;

function percent(share) {
  return Math.round(100 * share) + ' %';
}

// Whole percents whose sum is that of the shares: what rounding down lost goes to the largest rests.
function percents(shares) {
  const down = shares.map((share) => Math.floor(100 * share + 1e-6));
  const left = Math.round(100 * shares.reduce((a, b) => a + b, 0)) - down.reduce((a, b) => a + b, 0);
  const order = shares.map((share, n) => n).sort((a, b) => 100 * (shares[b] - shares[a]) - down[b] + down[a]);
  for (const n of order.slice(0, left)) down[n] += 1;
  return down.map((whole) => whole + ' %');
}

// Adapters with less than a hundredth, and those beyond the first five by their share, stand in a fold.
function drawLegend(value) {
  const whole = percents([...value.experts.map((expert) => expert.share), value.untouched || 0]);
  const small = (expert) => value.experts.length > 1 && value.tokens.length && expert.share < 0.01;
  const first = [...value.experts].sort((a, b) => b.share - a.share).slice(0, 5);
  const rest = value.experts.filter((expert) => small(expert) || !first.includes(expert));
  const items = (experts) => experts.map((expert, n) => {
    const item = make('li', 'expert');
    const chip = make('span', 'chip', expert.letter);
    chip.style.background = expert.colour;
    chip.style.color = expert.ink;
    item.append(chip, make('span', 'name', expert.name));
    if (value.tokens.length) {
      item.append(make('span', 'share', whole[value.experts.indexOf(expert)] + (n ? '' : ' of the answer')));
      item.title = 'Share ' + percent(expert.share) + '; leads at ' + percent(expert.led) + ' of the tokens';
    }
    return item;
  });
  legend.replaceChildren(...items(value.experts.filter((expert) => !rest.includes(expert))));
  if (rest.length) {
    const item = make('li', 'expert'), fold = make('details', 'rest'), list = make('ul', 'legend');
    list.append(...items(rest));
    const each = rest.every(small) ? ', under 1 %' + (rest.length > 1 ? ' each' : '') : '';
    fold.append(make('summary', '', rest.length + ' more' + each), list);
    item.append(fold);
    legend.append(item);
  }
  if (value.untouched) {
    const item = make('li', 'expert untouched');
    item.append(make('span', 'chip', '–'), make('span', 'name', 'no adapter needed'), make('span', 'share', whole.at(-1)));
    legend.append(item);
  }
  legend.hidden = !value.experts.length;
  copy.hidden = value.running || !value.tokens.length;
  meaning.textContent = value.meaning;
}

function strongly(strength) {
  return Math.round(100 * (0.12 + 0.43 * (strength || 0))) + '%';
}

// What an adapter did to a token, in nats, in words.
function times(nats) {
  const factor = Math.exp(Math.abs(nats));
  if (factor < 1.05) return 'changed nothing';
  return (factor < 10 ? factor.toFixed(1) : factor < 1000 ? Math.round(factor) : 'over 1000') + ' times ' + (nats > 0 ? 'likelier' : 'less likely');
}

function describe(value, token, index) {
  const named = token.w.map((w, e) => value.experts[e].letter + ' ' + value.experts[e].name + ' ' + (token.n ? times(token.n[e]) : percent(w)));
  const nobody = token.n ? 'no adapter needed' : 'no expert stands out';
  const leader = token.e < 0 ? nobody : 'expert ' + value.experts[token.e].letter + ', ' + value.experts[token.e].name + (token.n ? ', ' + times(token.n[token.e]) : '');
  const said = token.t.trim() || (token.t.includes('\n') ? 'line break' : token.t ? 'space' : ending(value, index) ? 'end of the answer' : 'no text');
  const by = value.unknown ? '' : ': ' + (value.experts.length ? leader : 'base model');
  return { label: said + by, title: ['Token ' + (index + 1), ...named].join('\n') };
}

// The end-of-answer token adds no text, but it was chosen like any other.
function ending(value, index) {
  return value.tokens[index].t === '' && !value.running && index === value.tokens.length - 1;
}

// All shares side by side as one thin line below the token.
function stackOf(value, shares) {
  let from = 0;
  const parts = shares.map((share, e) => {
    const to = from + 100 * share;
    const part = value.experts[e].colour + ' ' + from.toFixed(1) + '% ' + to.toFixed(1) + '%';
    from = to;
    return part;
  });
  return 'linear-gradient(to right, ' + parts.join(', ') + ')';
}

function drawToken(value, index) {
  const token = value.tokens[index];
  if (value.plain) return make('span', '', token.t);
  const node = make('span', 'token');
  // A line break must stay one, and yet be something to click.
  const glyph = ending(value, index) ? 'end' : token.t === '' ? '·' : /^\n+$/.test(token.t) ? token.t.replace(/\n/g, '↵\n') : token.t;
  node.textContent = glyph;
  if (token.t === '' || /^\n+$/.test(token.t)) node.classList.add('faint');
  if (ending(value, index)) node.classList.add('ending');
  const words = describe(value, token, index);
  node.setAttribute('role', 'button');
  node.setAttribute('aria-label', words.label);
  node.title = words.title;
  node.tabIndex = -1;
  node.dataset.index = index;
  if (token.e >= 0) {
    const expert = value.experts[token.e];
    node.style.setProperty('--expert', expert.colour);
    node.style.setProperty('--stack', stackOf(value, token.w));
    node.style.setProperty('--strength', strongly(token.s));
    node.classList.add('led');
    if (index === 0 || value.tokens[index - 1].e !== token.e) {
      node.classList.add('first');
      node.dataset.letter = expert.letter;
    }
  }
  return node;
}

// The tokens come as lines of JSON; a text that has only grown is read on from where it ended.
function tokensOf(text) {
  const grown = text.startsWith(read.text);
  const old = grown ? read.tokens : [];
  const lines = (grown ? text.slice(read.text.length) : text).split('\n').filter(Boolean);
  read = { text, tokens: [...old, ...lines.map((line) => JSON.parse(line))] };
  return read.tokens;
}

function draw() {
  if (props.value?.tokens === undefined) return; // mounted before its value came
  const value = { ...props.value, tokens: tokensOf(props.value.tokens) };
  const old = shown.run === value.run && shown.measure === value.measure ? shown.tokens : [];
  root.classList.toggle('growing', value.running);
  const same = (token, i) => i < value.tokens.length && token.t === value.tokens[i].t && token.e === value.tokens[i].e;
  const keep = old.every(same) ? (value.running ? old.length : Math.max(old.length - 1, 0)) : 0;
  if (value.running && shown.run !== value.run) show();
  text.querySelector('.caret')?.remove();
  text.querySelector('.empty')?.remove();
  const at = shown.run === value.run ? text.querySelector('[tabindex="0"]') : null; // where the keyboard is
  const focused = at !== null && at === document.activeElement;
  while (text.children.length > keep) text.lastChild.remove();
  for (let i = keep; i < value.tokens.length; i++) text.append(drawToken(value, i));
  if (value.running) text.append(make('span', 'caret', '▍'));
  if (!value.tokens.length && !value.running) text.append(make('span', 'empty', value.empty || ''));
  if (value.plain) text.setAttribute('aria-label', 'Answer');
  shown = { run: value.run, tokens: value.tokens, measure: value.measure };
  drawLegend(value);
  const again = at?.isConnected === false && text.querySelector('[data-index="' + at.dataset.index + '"]');
  if (again) again.tabIndex = 0;
  if (again && focused) again.focus({ preventScroll: true });
  if (value.differs) markDiffering(value, new Set(value.differs));
  if (!text.querySelector('[tabindex="0"]')) text.querySelector('.token')?.setAttribute('tabindex', '0');
}

// Tokens of words that another answer has not.
function markDiffering(value, places) {
  for (const node of text.querySelectorAll('.token')) {
    const index = Number(node.dataset.index);
    node.classList.toggle('differs', places.has(index));
    const label = describe(value, value.tokens[index], index).label;
    node.setAttribute('aria-label', label + (places.has(index) ? ', differs' : ''));
  }
}

// A new answer begins: bring it into sight if it is below the edge.
function show() {
  if (element.getBoundingClientRect().top > innerHeight - 160) {
    element.scrollIntoView({ behavior: 'smooth', block: 'center' });
  }
}

function mark(node) {
  if (!node || !node.classList.contains('token')) return;
  for (const other of text.querySelectorAll('.token[tabindex="0"]')) other.tabIndex = -1;
  const room = element.closest('[role="tabpanel"]') || element; // one panel shows one token of all its answers
  for (const other of room.querySelectorAll('.token[aria-pressed]')) other.removeAttribute('aria-pressed');
  node.tabIndex = 0;
  node.setAttribute('aria-pressed', 'true');
}

function pick(node, wait) {
  mark(node);
  node.focus({ preventScroll: !wait });
  clearTimeout(timer);
  timer = setTimeout(() => {
    node.dispatchEvent(new CustomEvent('picked', { bubbles: true }));
    trigger('select', { index: Number(node.dataset.index), run: shown.run });
  }, wait);
}

// The token above or below: the nearest one on the next line of text.
function vertical(node, down) {
  const from = node.getBoundingClientRect();
  const rows = [...text.querySelectorAll('.token')].map((other) => [other, other.getBoundingClientRect()]);
  const past = rows.filter(([, r]) => (down ? r.top > from.top + 4 : r.top < from.top - 4));
  if (!past.length) return null;
  const line = down ? Math.min(...past.map(([, r]) => r.top)) : Math.max(...past.map(([, r]) => r.top));
  const near = past.filter(([, r]) => Math.abs(r.top - line) < 4);
  near.sort((a, b) => Math.abs(a[1].left - from.left) - Math.abs(b[1].left - from.left));
  return near[0][0];
}

text.addEventListener('click', (event) => {
  const node = event.target.closest('.token');
  if (!node) return;
  pick(node, 0);
  // On a phone what a token opens lies over the lower half of the screen.
  if (matchMedia('(max-width: 640px)').matches) node.scrollIntoView({ behavior: 'smooth', block: 'start' });
});

// Copied text is the answer's own, without the signs that stand for a line break or the end.
function plain(tokens) {
  return tokens.map((token) => token.t).join('');
}

text.addEventListener('copy', (event) => {
  const selection = getSelection();
  const nodes = [...text.querySelectorAll('.token')].filter((node) => selection.containsNode(node, true));
  if (nodes.length < 2) return;
  event.preventDefault();
  event.clipboardData.setData('text/plain', plain(nodes.map((node) => shown.tokens[Number(node.dataset.index)])));
});

window.ramoleCopies(copy, () => plain(shown.tokens));

text.addEventListener('keydown', (event) => {
  const node = event.target.closest('.token');
  if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
  const sibling = (other) => (other && other.classList.contains('token') ? other : null);
  const moves = {
    ArrowRight: () => sibling(node.nextElementSibling),
    ArrowLeft: () => sibling(node.previousElementSibling),
    ArrowDown: () => vertical(node, true),
    ArrowUp: () => vertical(node, false),
    Home: () => text.querySelector('.token'),
    End: () => [...text.querySelectorAll('.token')].at(-1),
    Enter: () => node,
    ' ': () => node,
  };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const goal = moves[event.key]();
  if (goal) pick(goal, goal === node ? 0 : 180);
});

// While an answer grows, drawing it takes a quarter of the time at most: a long one costs more each
// time, and the page has to answer whoever presses a button meanwhile.
let due = null, free = 0;
function drawInTurn() {
  const wait = props.value?.running ? free - performance.now() : 0;
  if (wait > 0) {
    due ??= setTimeout(() => { due = null; drawInTurn(); }, wait);
    return;
  }
  clearTimeout(due);
  due = null;
  const began = performance.now();
  draw();
  root.getBoundingClientRect(); // the layout is part of it
  free = performance.now() + 3 * (performance.now() - began);
}

text.replaceChildren(); // the template's own line breaks
watch('value', drawInTurn);
draw();

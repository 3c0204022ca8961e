// Playback of an answer. Runs inside gr.HTML with element, props, trigger and watch; the DOM is built
// with textContent alone. Nothing plays before a button is pressed.
const root = element.querySelector('.player');
const play = root.querySelector('.play');
const slider = root.querySelector('input');
const where = root.querySelector('.where');
const growth = root.querySelector('.growth');
const soFar = root.querySelector('.so-far');
const make = window.ramoleMake;
const LONGEST = 12000; // milliseconds for a whole answer, where tokens need not be slower than 60
let value = { run: null, shares: [], experts: [], texts: [] };
let sums = []; // sums[i][e]: shares of the first i + 1 tokens
let at = 0;
let timer = null;

function room() {
  return element.closest('[role="tabpanel"]') || document;
}

// The adapters' cumulative shares after token i, as they stand upon each other.
function column(i) {
  const node = make('i');
  let from = 0;
  const parts = sums[i].map((sum, e) => {
    const to = from + (100 * sum) / (i + 1);
    const part = value.experts[e].colour + ' ' + from.toFixed(1) + '% ' + to.toFixed(1) + '%';
    from = to;
    return part;
  });
  node.style.background = 'linear-gradient(to top, ' + [...parts, 'transparent ' + from.toFixed(1) + '%'].join(', ') + ')';
  return node;
}

function row(expert) {
  const item = make('li');
  const chip = make('span', 'chip', expert.letter);
  chip.style.background = expert.colour;
  chip.style.color = expert.ink;
  const track = make('span', 'track');
  const bar = make('i');
  bar.style.background = expert.colour;
  track.append(bar);
  item.append(chip, make('span', 'name', expert.name), track, make('span', 'share'));
  return item;
}

function draw() {
  if (!props.value || props.value.run === value.run) return;
  pause();
  value = props.value;
  const total = value.experts.map(() => 0);
  sums = value.shares.map((shares) => shares.map((share, e) => (total[e] += share)));
  root.hidden = !sums.length;
  growth.replaceChildren(...sums.map((_, i) => column(i)));
  soFar.replaceChildren(...value.experts.map(row));
  slider.max = Math.max(sums.length, 1);
  if (sums.length) go(sums.length - 1);
}

// Show the answer up to token i.
function go(i) {
  at = Math.min(Math.max(i, 0), sums.length - 1);
  slider.value = at + 1;
  where.textContent = 'Token ' + (at + 1) + ' of ' + sums.length + ': ' + value.texts[at];
  slider.setAttribute('aria-valuetext', where.textContent);
  [...growth.children].forEach((node, n) => node.classList.toggle('ahead', n > at));
  [...soFar.children].forEach((node, e) => {
    const share = (100 * sums[at][e]) / (at + 1);
    node.querySelector('.track i').style.width = share.toFixed(1) + '%';
    node.querySelector('.share').textContent = share.toFixed(share < 1 && share > 0 ? 1 : 0) + ' %';
  });
  for (const node of room().querySelectorAll('.tokens .token')) {
    node.classList.toggle('ahead', timer !== null && Number(node.dataset.index) > at);
    node.classList.toggle('playing', timer !== null && Number(node.dataset.index) === at);
    if (node.classList.contains('playing')) follow(node);
  }
}

// A long answer scrolls within itself; the page stays where it is.
function follow(node) {
  const text = node.parentElement;
  const here = node.getBoundingClientRect();
  const box = text.getBoundingClientRect();
  if (here.top < box.top || here.bottom > box.bottom) text.scrollTop += here.top - box.top - box.height / 3;
}

function pause() {
  if (timer !== null) clearInterval(timer);
  timer = null;
  for (const node of room().querySelectorAll('.token.ahead, .token.playing')) node.classList.remove('ahead', 'playing');
  play.textContent = '▶ Play';
}

function start() {
  const wait = Math.max(60, Math.min(350, LONGEST / sums.length));
  if (at >= sums.length - 1) at = -1;
  play.textContent = '❚❚ Pause';
  timer = setInterval(() => {
    if (!element.isConnected) return pause();
    if (at + 1 < sums.length) go(at + 1);
    if (at + 1 >= sums.length) stop();
  }, wait);
}

// Whoever stops at a token picks it for all panels.
function stop() {
  pause();
  go(at);
  trigger('select', { index: at, run: value.run });
}

let later = null;
let stepped = 0;
function step(i) {
  stepped = Date.now();
  pause();
  go(i);
  clearTimeout(later);
  later = setTimeout(() => trigger('select', { index: at, run: value.run }), 180);
}

play.addEventListener('click', () => (timer === null ? start() : stop()));
root.querySelector('.back').addEventListener('click', () => step(at - 1));
root.querySelector('.on').addEventListener('click', () => step(at + 1));
slider.addEventListener('input', () => step(Number(slider.value) - 1));
// A token that is picked elsewhere.
document.addEventListener('inspect-token', (event) => {
  const stepping = Date.now() - stepped < 800; // then it is an echo of a step before this one
  if (sums.length && timer === null && !stepping && event.detail !== at) go(event.detail);
});
watch('value', draw);
draw();

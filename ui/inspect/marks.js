// Marks the picked token in pictures and answer, and hears clicks on pictures. Runs inside gr.HTML with
// element, props, trigger and watch.
const PICKED = 'picked';
let timer = null;

function room() {
  return element.closest('[role="tabpanel"]') || document;
}

function figures() {
  return [...room().querySelectorAll('.js-plotly-plot')].filter((one) => one.layout && one.layout.meta && one._fullLayout);
}

function frame(at) {
  const colour = getComputedStyle(document.body).color;
  return { type: 'rect', name: PICKED, xref: 'x', yref: 'paper', x0: at - 0.5, x1: at + 0.5, y0: 0, y1: 1, line: { color: colour, width: 2 } };
}

function markFigure(one, at) {
  const shapes = one.layout.shapes || [];
  const old = shapes.find((shape) => shape.name === PICKED);
  if (old ? old.x0 === at - 0.5 : at === undefined) return;
  const others = shapes.filter((shape) => shape.name !== PICKED);
  window.Plotly.relayout(one, { shapes: at === undefined ? others : [...others, frame(at)] });
}

// The first token in the column that was clicked.
function heard(one, event) {
  const number = event.points[0].pointNumber;
  const index = props.value.at[one.layout.meta.per].indexOf(Array.isArray(number) ? number[1] : number);
  if (index >= 0) trigger('select', { index, run: props.value.run });
}

function mark() {
  const { token, at } = props.value;
  for (const one of figures()) {
    one.setAttribute('role', 'img');
    one.setAttribute('aria-label', one.layout.meta.title.replace(/&lt;/g, '<').replace(/&gt;/g, '>').replace(/&amp;/g, '&'));
    const { per } = one.layout.meta;
    if (!per) continue;
    if (!one.dataset.heard) one.on('plotly_click', (event) => heard(one, event));
    one.dataset.heard = '1';
    markFigure(one, token === null ? undefined : at[per][token]);
  }
  for (const node of room().querySelectorAll('#inspect-answer .token')) {
    if (Number(node.dataset.index) === token) node.setAttribute('aria-pressed', 'true');
    else node.removeAttribute('aria-pressed');
  }
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(mark, 60);
}

// Another answer in Ask is shown at once where this tab is in sight, else when it is opened.
document.addEventListener('ramole-answered', () => {
  if (room().getClientRects?.().length) document.querySelector('#inspect-again').click();
});
setTimeout(() => new MutationObserver(soon).observe(room(), { childList: true, subtree: true }), 0);
watch('value', () => {
  mark();
  if (props.value.token !== null) document.dispatchEvent(new CustomEvent('inspect-token', { detail: props.value.token }));
});
soon();

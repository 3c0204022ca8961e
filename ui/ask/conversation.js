// The earlier turns of a conversation, each drawn once, by the token view's own script. Texts of
// strangers are set as textContent alone.
const list = element.querySelector('.talk');
const shown = new Map();
const make = window.ramoleMake;

function tokenView(element, props, trigger, watch) {
/* tokens.js */
}

function question(words, who) {
  const node = make('p', 'asked', words);
  node.prepend(make('span', 'who', who || 'You'));
  return node;
}

function drawn(turn, number, value) {
  const node = make('li', 'turn', '');
  const answer = make('div', 'said', '');
  answer.innerHTML = 'TEMPLATE';
  node.append(make('h2', 'number', 'Turn ' + number), question(turn.prompt, value.who), answer, make('p', 'quiet how', turn.how));
  if (turn.beside !== null) {
    const fold = make('details', 'other', '');
    fold.append(make('summary', '', 'The base alone, without adapters'), make('div', 'plain', turn.beside));
    node.append(fold);
  }
  tokenView(answer, { value: turn.view }, trigger, () => {});
  return node;
}

function drawAll() {
  const value = props.value || { turns: [], asked: '' };
  const names = new Set(value.turns.map((turn) => turn.name));
  for (const [name, node] of shown) {
    if (names.has(name)) continue;
    node.remove();
    shown.delete(name);
  }
  list.querySelector('.now')?.remove();
  value.turns.forEach((turn, n) => {
    if (!shown.has(turn.name)) shown.set(turn.name, drawn(turn, n + 1, value));
    list.append(shown.get(turn.name));
  });
  if (value.asked) {
    const now = make('li', 'turn now', '');
    if (value.turns.length) now.append(make('h2', 'number', 'Turn ' + (value.turns.length + 1)));
    now.append(question(value.asked, value.who));
    list.append(now);
  }
  list.scrollTop = list.scrollHeight;
}

list.replaceChildren(); // the template's own line breaks
watch('value', drawAll);
drawAll();

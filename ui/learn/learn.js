// "Try it" goes to a live tab, and puts a prompt into its form as if it were typed, so that the browser
// can undo it; arrow keys walk the list of steps. Runs inside gr.HTML with element.
const FIELDS = { Ask: '#prompt textarea', Compare: '#compare-prompt textarea' };

function tabNamed(name) {
  const shown = [...document.querySelectorAll('[role="tab"], .overflow-menu button')];
  return shown.find((tab) => tab.textContent.trim() === name && tab.getClientRects().length) ||
    shown.find((tab) => tab.textContent.trim() === name);
}

// A tab is built when it is first opened, which takes long on a busy machine: the prompt waits for its
// form until then, or until somebody opens another tab.
let waiting = null;

function fill(request) {
  if (waiting !== request) return;
  const field = document.querySelector(request.field);
  if (!field || !field.getClientRects().length) {
    setTimeout(fill, 100, request);
    return;
  }
  waiting = null;
  field.focus();
  field.select();
  if (document.execCommand('insertText', false, request.prompt)) return;
  field.value = request.prompt;
  field.dispatchEvent(new Event('input', { bubbles: true }));
}

document.addEventListener('click', (event) => {
  if (event.target.closest('[role="tab"], .overflow-menu button')) waiting = null;
}, true);

function open(button) {
  const title = document.querySelector('#learn-words h2')?.textContent;
  if (button && title && button.dataset.step !== title) {
    // the words are of a step whose button is about to come
    setTimeout(() => open(element.querySelector('button[data-tab]')), 50);
    return;
  }
  if (!button) return;
  const tab = tabNamed(button.dataset.tab);
  if (!tab) return;
  tab.click();
  scrollTo({ top: 0 });
  if (button.dataset.prompt && FIELDS[button.dataset.tab]) {
    waiting = { field: FIELDS[button.dataset.tab], prompt: button.dataset.prompt };
    fill(waiting);
  }
}

element.addEventListener('click', (event) => open(event.target.closest('button[data-tab]')));

// Gradio's radio buttons do not know each other, so the list of steps is walked here.
document.addEventListener('keydown', (event) => {
  const move = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (!move || !event.target.matches('#learn-steps input')) return;
  event.preventDefault();
  const steps = [...document.querySelectorAll('#learn-steps input')];
  const next = steps[steps.indexOf(event.target) + move];
  if (!next) return;
  next.focus();
  next.click();
});

// "Try it" goes to a live tab with the step's prompt; arrow keys walk the list of steps. Runs inside
// gr.HTML with element.
function open(button) {
  const title = document.querySelector('#learn-words h2')?.textContent;
  if (button && title && button.dataset.step !== title) {
    // the words are of a step whose button is about to come
    setTimeout(() => open(element.querySelector('button[data-tab]')), 50);
    return;
  }
  if (!button) return;
  scrollTo({ top: 0 });
  window.ramoleTry(button.dataset.tab, button.dataset.prompt);
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

// Buttons that copy a link to the answer in sight, and Python that asks the same again.
const buttons = { link: element.querySelector('.link'), python: element.querySelector('.python') };

function chosen() {
  const token = document.querySelector('#answer .token[aria-pressed="true"]');
  return token ? '&t=' + token.dataset.index : '';
}

const words = {
  link: () => {
    const hash = props.value.link + chosen();
    window.ramoleAddress?.(hash);
    return location.origin + location.pathname + hash;
  },
  python: () => props.value.python,
};

for (const [kind, button] of Object.entries(buttons)) {
  const label = button.textContent;
  button.addEventListener('click', async () => {
    await window.ramoleCopy(words[kind]());
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = label; }, 2000);
  });
}

function draw() {
  const value = props.value || {};
  element.querySelector('.takeaway').hidden = !value.link;
  if (value.link) document.dispatchEvent(new Event('ramole-answered')); // for other tabs
  // A reload asks for the last answer again; a recorded run comes by itself.
  if (!value.link || value.first) return;
  window.ramoleKept.set('ramole-link', value.link);
  window.ramoleAnswered?.(value.link);
  if (window.ramoleKept.get('ramole-typed') === value.prompt) window.ramoleKept.remove('ramole-typed');
}
watch('value', draw);
draw();

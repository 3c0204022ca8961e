// A button that copies a link to what a tab shows, with the token that is picked there.
const button = element.querySelector('button');
const label = button.textContent;

button.addEventListener('click', async () => {
  const { link, tokens } = props.value;
  const picked = tokens && document.querySelector(tokens + ' .token[aria-pressed="true"]');
  const hash = link + (picked ? '&t=' + picked.dataset.index : '');
  window.ramoleAddress?.(hash);
  await window.ramoleCopy(location.origin + location.pathname + hash);
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = label; }, 2000);
});

function draw() {
  button.hidden = !(props.value || {}).link;
}
watch('value', draw);
draw();

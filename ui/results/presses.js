// A tile opens its section and leads to it; a button copies its command.
element.addEventListener('click', async (event) => {
  const link = event.target.closest('.rm-glance a');
  if (link) {
    const section = document.querySelector(link.getAttribute('href'));
    if (!section) return;
    event.preventDefault();  // the address stays what it is
    const native = section.matches('details');
    const title = section.querySelector(native ? 'summary' : 'button.label-wrap');
    if (native) section.open = true;
    else if (!title.classList.contains('open')) title.click();
    section.scrollIntoView({ block: 'start' });
    title.focus({ preventScroll: true });
  }
  const button = event.target.closest('.rm-copy');
  if (!button) return;
  const code = button.parentElement.querySelector('code'), said = button.querySelector('span');
  let done = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {  // without https the clipboard is not there
    const range = document.createRange(), chosen = getSelection();
    range.selectNodeContents(code);
    chosen.removeAllRanges();
    chosen.addRange(range);
    done = document.execCommand('copy');
    if (done) chosen.removeAllRanges();
  }
  said.textContent = done ? 'Copied' : 'Press Ctrl+C';
  setTimeout(() => { said.textContent = 'Copy'; }, 2000);
});

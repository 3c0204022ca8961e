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
  const said = button.querySelector('span');
  await window.ramoleCopy(button.parentElement.querySelector('code').textContent);
  said.textContent = 'Copied';
  setTimeout(() => { said.textContent = 'Copy'; }, 2000);
});

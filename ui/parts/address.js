// The address of the page: tabs are in the browser's history, and what stands behind # opens them.
() => {
  const TABS = '#tabs [role="tab"], #tabs .overflow-dropdown button'; // the latter where they do not fit
  const nameOf = (hash) => hash.slice(1).split('?')[0];
  const tabName = (button) => button.dataset.tabId || button.textContent.trim().toLowerCase();
  const buttons = () => [...document.querySelectorAll(TABS)];
  const open = (name) => {
    const goal = buttons().find((button) => tabName(button) === (name || 'ask'));
    if (goal && goal.getAttribute('aria-selected') !== 'true') goal.click();
  };
  let kept = '#ask'; // the address of the tab Ask, with the question that it shows
  let walking = false;
  window.ramoleTab = open;
  window.ramoleAddress = (hash) => {
    kept = hash;
    history.replaceState(null, '', hash);
  };
  document.addEventListener('click', (event) => {
    const button = event.target.closest(TABS);
    const name = button && tabName(button);
    if (!name || walking || name === nameOf(location.hash)) return;
    history.pushState(null, '', name === 'ask' ? kept : '#' + name);
  }, true);
  addEventListener('popstate', () => {
    walking = true;
    open(nameOf(location.hash));
    walking = false;
  });
  const asked = location.hash;
  addEventListener('hashchange', () => { // another link was opened in this very page
    const question = location.hash.includes('?') ? location.hash : asked;
    if (question !== asked && question !== kept) location.reload();
  });
  if (location.hash.includes('?')) kept = location.hash;
  open(nameOf(location.hash));
}

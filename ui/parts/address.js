// The address of the page: tabs are in the browser's history, and what stands behind # opens them.
() => {
  const nameOf = (hash) => hash.slice(1).split('?')[0];
  const button = (name) => (/^[a-z]+$/.test(name) ? document.getElementById(name + '-tab-button') : null);
  const open = (name) => {
    const goal = button(name || 'ask');
    if (goal && goal.getAttribute('aria-selected') !== 'true') goal.click();
  };
  let kept = '#ask'; // the address of the tab Ask, with the question that it shows
  let walking = false;
  window.ramoleAddress = (hash) => {
    kept = hash;
    history.replaceState(null, '', hash);
  };
  document.addEventListener('click', (event) => {
    const tab = event.target.closest('#tabs [role="tab"]');
    const name = tab?.id.replace(/-tab-button$/, '');
    if (!name || walking || name === nameOf(location.hash)) return;
    history.pushState(null, '', name === 'ask' ? kept : '#' + name);
  }, true);
  addEventListener('popstate', () => {
    walking = true;
    open(nameOf(location.hash));
    walking = false;
  });
  let asked = location.hash;
  addEventListener('hashchange', () => { // another link was opened in this very page
    const question = location.hash.includes('?') ? location.hash : asked;
    if (question !== asked && question !== kept) location.reload();
  });
  if (location.hash.includes('?')) kept = location.hash;
  open(nameOf(location.hash));
}

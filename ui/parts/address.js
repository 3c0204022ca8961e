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
  const asked = location.hash;
  const kept = { ask: '#ask' }; // each tab's address, with what it shows
  const known = new Set([asked]);
  let walking = false;
  const keep = (hash) => {
    kept[nameOf(hash)] = hash;
    known.add(hash);
  };
  window.ramoleTab = open;
  window.ramoleAddress = (hash) => {
    keep(hash);
    history.replaceState(null, '', hash);
  };
  // Ask has another answer: an address that asks for what was there before would bring that back.
  window.ramoleAnswered = (link) => {
    const stale = (hash) => /[?&](r|run)=/.test(hash) && !hash.replace(/^#\w*/, '#ask').startsWith(link);
    const now = (hash) => link.replace(/^#\w*/, '#' + nameOf(hash));
    for (const hash of Object.values(kept).filter(stale)) keep(now(hash));
    if (stale(location.hash)) window.ramoleAddress(now(location.hash));
  };
  document.addEventListener('click', (event) => {
    const button = event.target.closest(TABS);
    const name = button && tabName(button);
    if (!name || walking || name === nameOf(location.hash)) return;
    const hash = kept[name] || '#' + name;
    known.add(hash);
    history.pushState(null, '', hash);
  }, true);
  addEventListener('popstate', () => {
    walking = true;
    open(nameOf(location.hash));
    walking = false;
  });
  addEventListener('hashchange', () => { // another link was opened in this very page
    if (location.hash.includes('?') && !known.has(location.hash)) location.reload();
  });
  const question = /[?&](r|run)=/.test(asked);
  if (asked.includes('?')) keep(asked);
  if (question) keep(asked.replace(/^#\w*/, '#ask'));
  if (!question || nameOf(asked) === 'ask') open(nameOf(asked)); // else once Ask has the answer
}

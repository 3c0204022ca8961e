// A prompt to try goes to a tab's form as if it were typed there, so that the browser can undo it.
{
  const FIELDS = { Ask: '#prompt textarea', Compare: '#compare-prompt textarea' };
  const TABS = '[role="tab"], .overflow-menu button';
  const tabNamed = (name) => {
    const named = [...document.querySelectorAll(TABS)].filter((tab) => tab.textContent.trim() === name);
    return named.find((tab) => tab.getClientRects().length) || named[0];
  };
  // A tab is built when it is first opened, which takes long on a busy machine: the prompt waits for its
  // form until then, or until somebody opens another tab.
  let waiting = null;
  const fill = (request) => {
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
  };
  document.addEventListener('click', (event) => {
    if (event.target.closest(TABS)) waiting = null;
  }, true);
  window.ramoleTry = (name, prompt) => {
    const tab = tabNamed(name);
    if (!tab) return;
    tab.click();
    if (!prompt || !FIELDS[name]) return;
    waiting = { field: FIELDS[name], prompt };
    fill(waiting);
  };
}

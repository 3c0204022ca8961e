// Buttons that copy a text, such as a link to what a tab shows.
{
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // without https the clipboard is not there
      const area = window.ramoleMake('textarea', 'sr', text);
      document.body.append(area);
      area.select();
      document.execCommand('copy');
      area.remove();
    }
  };
  // A press copies what `text` returns.
  window.ramoleCopies = (button, text) => {
    const label = button.textContent;
    button.addEventListener('click', async () => {
      await copy(text());
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = label; }, 2000);
    });
  };
  // The whole address of a link, with the token that is picked inside `tokens`; the page has it from then on.
  window.ramoleLink = (link, tokens) => {
    const picked = tokens && document.querySelector(tokens + ' .token[aria-pressed="true"]');
    const hash = link + (picked ? '&t=' + picked.dataset.index : '');
    window.ramoleAddress?.(hash);
    return location.origin + location.pathname + hash;
  };
}

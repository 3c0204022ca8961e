// Reads the page's address for Ask: what to ask, which tab and token to open then, and what was typed.
() => {
  const asks = (hash) => /[?&](r|run)=/.test(hash);
  const inAsk = (hash) => hash.replace(/^#\w*/, '#ask'); // whichever tab shows it
  const last = window.ramoleKept.get('ramole-link');
  const told = asks(location.hash) ? location.hash : last;
  const same = !asks(location.hash) || (last && inAsk(told).startsWith(last));
  let typed = same ? window.ramoleKept.get('ramole-typed') : ''; // to no other question
  const field = () => document.querySelector('#prompt textarea');
  document.addEventListener('input', (event) => {
    if (event.target !== field()) return;
    typed = ''; // what is typed now is newer
    window.ramoleKept.set('ramole-typed', field().value);
  });
  const tab = told.slice(1).split('?')[0];
  const answer = tab === 'inspect' ? '#inspect-answer' : '#answer';
  const place = new URLSearchParams(told.split('?')[1] || '').get('t');
  const token = () => document.querySelectorAll(answer + ' .token')[Number(place)];
  const ended = () => !document.querySelector('#answer .caret') && !document.querySelector('#ask-button').disabled;
  window.ramoleOpened = { waits: told !== '', told };
  let opened = tab === 'ask';
  if (told) { // once its answer has ended, the tab and the token of the link are opened, and what was typed is back
    const until = Date.now() + 180000;
    const look = setInterval(() => {
      if (Date.now() > until) clearInterval(look);
      if (window.ramoleOpened.waits || !ended()) return;
      if (document.querySelector('#notice .notice.wrong')) { // no answer comes
        clearInterval(look);
        if (typed) type(typed);
        return;
      }
      if (!document.querySelector('#answer .token')) return;
      if (!opened) window.ramoleTab(tab); // once: whoever goes elsewhere then is let go
      opened = true;
      if (!document.querySelector(answer + ' .token')) return;
      clearInterval(look);
      if (/^\d+$/.test(place || '')) token()?.click(); // this answer may be shorter
      if (typed) type(typed);
    }, 200);
  } else if (typed) {
    setTimeout(() => type(typed), 500);
  }
  function type(words) {
    field().value = words;
    field().dispatchEvent(new Event('input', { bubbles: true }));
  }
  return [told];
}

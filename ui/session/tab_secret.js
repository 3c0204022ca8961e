// A browser tab is one visitor, a reload included: a secret that only this tab knows goes with its calls.
(() => {
  const bytes = () => [...crypto.getRandomValues(new Uint8Array(16))];
  const fresh = () => bytes().map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const secret = window.ramoleKept.get('ramole-tab') || fresh();
  window.ramoleKept.set('ramole-tab', secret);
  const send = window.fetch;
  window.fetch = (what, how) => {
    const asked = what instanceof Request ? what : null;
    if (new URL(asked ? asked.url : what, location.href).origin !== location.origin) return send(what, how);
    const headers = new Headers(how?.headers ?? asked?.headers);
    headers.set('x-ramole-session', secret);
    return send(what, { ...how, headers });
  };
})();

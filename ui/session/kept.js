// What a browser tab keeps over a reload, by name; in memory alone where the browser keeps no site data.
window.ramoleKept = (() => {
  const memory = new Map();
  const stored = (act) => {
    try {
      return act(sessionStorage);
    } catch {
      return null;
    }
  };
  return {
    get: (name) => memory.get(name) ?? stored((there) => there.getItem(name)) ?? '',
    set: (name, value) => {
      memory.set(name, value);
      stored((there) => there.setItem(name, value));
    },
    remove: (name) => {
      memory.delete(name);
      stored((there) => there.removeItem(name));
    },
  };
})();

// No frame is drawn where nothing changes. Gradio's sign of loading counts seconds in every frame, also
// when it is long gone, which took a twentieth of a core for each tab at rest. Its clock held
// `requestAnimationFrame` before this script ran: once, frames that were not requested here are dropped.
(() => {
  const native = window.requestAnimationFrame, requested = new Set();
  const frame = window.requestAnimationFrame = (draw) => {
    const id = native.call(window, draw);
    requested.add(id);
    return id;
  };
  frame(() => frame(() => { // by now whoever goes on drawing has come by here
    window.requestAnimationFrame = native;
    for (let id = native.call(window, () => {}); id > 0; id -= 1) {
      if (!requested.has(id)) window.cancelAnimationFrame(id);
    }
  }));
})();

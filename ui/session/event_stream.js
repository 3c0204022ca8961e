// Gradio's server closes a page's stream of events when no event is left, and its client does not
// look whether one was sent meanwhile: that one would wait for its answer until another is sent. So
// a stream is closed for the client only when none is on its way, and else opened anew under it.
(() => {
  const CLOSE = '"msg":"close_stream"', OVER = /"msg":"process_completed".*?"event_id":"([^"]+)"/;
  const send = window.fetch, open = new Set(), over = new Set();
  let joining = 0;

  const join = async (what, how) => {
    joining += 1;
    try {
      const answer = await send(what, how);
      const told = answer.ok ? await answer.clone().json() : {};
      if (told.event_id && !over.delete(told.event_id)) open.add(told.event_id);
      return answer;
    } finally {
      joining -= 1;
    }
  };
  const follow = (body, again) => {
    const from = new TextDecoder(), to = new TextEncoder();
    let reader = body.getReader(), text = '';
    return new ReadableStream({
      async pull(out) {
        for (let passed = false; !passed; ) {
          const end = text.indexOf('\n\n');
          if (end < 0) {
            const { done, value } = await reader.read();
            if (done) return out.close();
            text += from.decode(value, { stream: true });
            continue;
          }
          const message = text.slice(0, end + 2);
          text = text.slice(end + 2);
          const ended = message.slice(0, 400).match(OVER)?.[1];
          if (ended && !open.delete(ended)) over.add(ended);
          passed = !(message.includes(CLOSE) && (joining || open.size));
          if (passed) out.enqueue(to.encode(message));
          else reader = (await again()).body.getReader();
        }
      },
      cancel: (why) => reader.cancel(why),
    });
  };
  window.fetch = async (what, how) => {
    const path = new URL(what instanceof Request ? what.url : what, location.href).pathname;
    if (path.endsWith('/queue/join')) return join(what, how);
    const again = () => send(what, how);
    if (!path.endsWith('/queue/data')) return again();
    const answer = await again();
    return answer.ok && answer.body ? new Response(follow(answer.body, again), answer) : answer;
  };
})();

// A page's stream of events, which ends for Gradio's client only when no event is on its way.
// Gradio's server ends it when it has no event left, and its client does not look whether one was
// sent meanwhile: that one would wait for its answer until another is sent.
(() => {
  const CLOSE = 'data: {"msg":"close_stream"', FAILED = 'data: {"msg":"unexpected_error"';
  const OVER = /^data: \{"msg":"process_completed","event_id":"([^"]+)"/;
  const send = window.fetch, open = new Set(), over = new Set(), joining = new Set();
  const forget = () => [open, over].forEach((events) => events.clear());

  const join = (what, how) => {
    const sent = send(what, how);
    const noted = sent.then((answer) => answer.clone().json()).then((told) => {
      if (told?.event_id && !over.delete(told.event_id)) open.add(told.event_id);
    }).catch(() => {});
    joining.add(noted);
    return noted.then(() => joining.delete(noted)).then(() => sent);
  };
  const follow = (body, again) => {
    const from = new TextDecoder(), to = new TextEncoder();
    let reader = body.getReader(), text = '', searched = 0;
    const next = async () => { // the next message; none where the stream has ended
      for (;;) {
        const end = text.indexOf('\n\n', searched);
        if (end >= 0) {
          const message = text.slice(0, end + 2);
          text = text.slice(end + 2);
          searched = 0;
          return message;
        }
        searched = Math.max(0, text.length - 1);
        const { done, value } = await reader.read();
        if (done) return null;
        text += from.decode(value, { stream: true });
      }
    };
    const reopened = async () => {
      await Promise.all(joining);
      const answer = open.size ? await again().catch(() => null) : null;
      if (!answer?.ok || !answer.body) return false;
      [reader, text, searched] = [answer.body.getReader(), '', 0];
      return true;
    };
    return new ReadableStream({
      async pull(out) {
        for (;;) {
          const message = await next().catch((error) => { forget(); throw error; });
          if (message === null || message.startsWith(CLOSE)) {
            if (await reopened()) continue;
            forget();
            out.enqueue(to.encode(`${CLOSE}}\n\n`));
            return out.close();
          }
          const [, ended] = message.match(OVER) || [];
          if (ended && !open.delete(ended)) over.add(ended);
          if (message.startsWith(FAILED)) forget();
          return out.enqueue(to.encode(message));
        }
      },
      cancel: (why) => reader.cancel(why),
    });
  };
  window.fetch = async (what, how) => {
    const path = new URL(what instanceof Request ? what.url : what, location.href).pathname;
    if (path.endsWith('/queue/join')) return join(what, how);
    const again = () => send(what, how);
    const answer = await again();
    if (!path.endsWith('/queue/data') || !answer.ok || !answer.body) return answer;
    return new Response(follow(answer.body, again), answer);
  };
})();

// Buttons that copy a link to the answer in sight, and Python that asks the same again.
window.ramoleCopies(element.querySelector('.link'), () => window.ramoleLink(props.value.link, '#answer'));
window.ramoleCopies(element.querySelector('.python'), () => props.value.python);

function draw() {
  const value = props.value || {};
  element.querySelector('.takeaway').hidden = !value.link;
  if (value.link) document.dispatchEvent(new Event('ramole-answered')); // for other tabs
  // A reload asks for the last answer again; a recorded run comes by itself.
  if (!value.link || value.first) return;
  window.ramoleKept.set('ramole-link', value.link);
  window.ramoleAnswered?.(value.link);
  if (window.ramoleKept.get('ramole-typed') === value.prompt) window.ramoleKept.remove('ramole-typed');
}
watch('value', draw);
draw();

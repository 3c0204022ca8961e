// Enter in the prompt: asks; while an answer is on its way, keeps what is typed and asks it next.
() => {
  const button = () => document.querySelector('#ask-button');
  const said = document.querySelector('#held p');
  const typed = () => document.querySelector('#prompt textarea').value.trim();
  const asked = document.querySelector('#talk .now .asked')?.lastChild?.textContent.trim();
  const over = () => {
    clearInterval(window.ramoleNext);
    said.textContent = '';
  };
  over();
  if (!button().disabled) {
    button().click();
    return;
  }
  if (!typed() || typed() === asked) {
    said.textContent = 'An answer is on its way: type the next question, wait for its end, or press Stop.';
    setTimeout(() => { if (!said.querySelector('button')) said.textContent = ''; }, 5000);
    return;
  }
  said.textContent = 'Kept: asked as soon as this answer has ended. ';
  const drop = document.createElement('button');
  drop.type = 'button';
  drop.textContent = 'Do not ask it';
  drop.onclick = over;
  said.append(drop);
  window.ramoleNext = setInterval(() => {
    if (button().disabled) return;
    over();
    if (typed()) button().click();
  }, 100);
}

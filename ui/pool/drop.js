// Dropping adapters: the line opens when a file is dragged, and a folder's name becomes the name.
// Gradio hands on no folder: a browser's file has its own name alone, and a dropped folder is none
// of Gradio's files. So the name goes into the field Name, and a folder's files into its zone; several
// folders become a zip each (zip.js).
const NAME = '#pool-given-name textarea, #pool-given-name input';
const ADAPTER = /^adapter_|[.]safetensors$/;
let given = ''; // what this script wrote into the field

function give(name) {
  const box = document.querySelector(NAME);
  if (!box || (box.value && box.value !== given)) return; // what was typed stays
  given = name;
  if (box.value === name) return;
  box.value = name;
  box.dispatchEvent(new Event('input', { bubbles: true }));
}

function hand(files, zone) {
  const input = document.querySelector(zone + ' input[type=file]'), list = new DataTransfer();
  if (!input) return;
  files.forEach((file) => list.items.add(file));
  input.files = list.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
}

// A browser hands a folder's entries over by the hundred.
async function read(folder) {
  const reader = folder.createReader(), every = [];
  for (;;) {
    const more = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!more.length) return every;
    every.push(...more);
  }
}
const opened = (entry) => new Promise((done, fail) => entry.file(done, fail));

async function inside(folder) { // its files, or where it is no adapter, those of each folder in it
  const entries = await read(folder), files = entries.filter((entry) => entry.isFile);
  const folders = entries.filter((entry) => entry.isDirectory);
  if (folders.length && !files.some((file) => ADAPTER.test(file.name))) return (await Promise.all(folders.map(inside))).flat();
  return [{ name: folder.name, files: await Promise.all(files.map(opened)) }];
}

document.addEventListener('change', (event) => {
  if (!event.target.matches('#pool-drop input[type=file]')) return;
  const path = event.target.files[0]?.webkitRelativePath || '';
  give(path.includes('/') ? path.split('/').at(-2) : '');
}, true);

document.addEventListener('dragenter', (event) => {
  if (![...(event.dataTransfer?.types || [])].includes('Files')) return;
  const line = document.querySelector('#pool-drop > button.label-wrap');
  if (line && line.offsetParent && !line.classList.contains('open')) line.click();
});

document.addEventListener('dragover', (event) => { // else the browser would leave for the file
  if (event.target.closest?.('#pool-drop')) event.preventDefault();
});

document.addEventListener('drop', async (event) => {
  if (!event.target.closest?.('#pool-drop')) return;
  const items = [...event.dataTransfer.items], files = [...event.dataTransfer.files];
  const folders = items.map((item) => item.webkitGetAsEntry?.()).filter((one) => one?.isDirectory);
  if (!folders.length && event.target.closest('.upload-container')) return; // Gradio's own
  event.preventDefault();
  event.stopPropagation();
  if (!folders.length) return hand(files, '#pool-files');
  const found = (await Promise.all(folders.map(inside))).flat();
  if (found.length === 1 && !files.some((file) => /\.zip$/i.test(file.name))) {
    hand(found[0].files, '#pool-folder');
    give(found[0].name);
    return;
  }
  const loose = files.filter((file) => /\.zip$/i.test(file.name));
  const each = await Promise.all(found.map((one) => zipped(one.name, one.files)));
  hand([...each, ...loose], '#pool-files');
}, true);

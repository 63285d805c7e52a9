// Used by every part of the page: texts, numbers, messages, several workers, saving files.
const $ = (id) => document.getElementById(id);
const LABEL_SHOWN = 120; // characters of a name; names in files can have any length
const MOST_WORKERS = 8;
let facts, last, stream, chosen = 0, turn = 0, spoken = "", spokenAt = 0;

const show = (element, isShown) => { element.hidden = !isShown; };
const shorten = (text) => (text.length > LABEL_SHOWN ? `${Array.from(text).slice(0, LABEL_SHOWN).join("")}…` : text);
// Rounds, but never to "0 %" or "100 %".
function percent(share) {
  if (share < 0.0005) return "< 0.1 %";
  if (share < 0.0995 || share >= 0.995) return `${Math.min(100 * share, 99.9).toFixed(1)} %`;
  return `${(100 * share).toFixed(0)} %`;
}
const kilobytes = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(2)} MB`);

function setState(text, kind) {
  $("state").textContent = text;
  $("state").className = kind || "";
}

function complain(text) {
  $("error").textContent = text;
  show($("error"), Boolean(text));
}

function say(text) {
  // Screen readers read this text. With a live camera, limit it: no repetition, and at most one text in two seconds.
  const now = performance.now();
  if (text === spoken || (stream && now - spokenAt < 2000)) return;
  [spoken, spokenAt] = [text, now];
  $("say").textContent = text;
}

function part(tag, name, text) {
  const element = Object.assign(document.createElement(tag), { className: name });
  if (text !== undefined) element.textContent = text;
  return element;
}

function button(text, name, onclick) {
  return Object.assign(part("button", name, text), { type: "button", onclick });
}

// ---- several photos, and files

// Classifies photos with as many workers as there are cores; calls `onResult(result, index)` in any order.
async function askAll(images, { workers = navigator.hardwareConcurrency || 2, onResult, isStopped, ...options } = {}) {
  const count = Math.max(1, Math.min(workers, MOST_WORKERS, images.length));
  while (helpers.length < count) helpers.push(new Helper());
  const results = [];
  let next = 0;
  await Promise.all(helpers.slice(0, count).map(async (helper) => {
    await helper.open(0);
    while (next < images.length && !isStopped?.()) {
      const index = next++;
      results[index] = await helper.ask("classify", { image: images[index], map: false, ...options });
      onResult?.(results[index], index);
    }
  }));
  return results;
}

// Saves bytes or text as a file, like a click on a download link.
function save(data, name, type) {
  const url = URL.createObjectURL(new Blob([data], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

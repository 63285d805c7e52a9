// What every part of the page uses: words, numbers, messages, workers.
const $ = (id) => document.getElementById(id);
const LABEL_SHOWN = 120; // characters of a name; files may bring names of any length
const MOST_WORKERS = 8;
let facts, parts, last, stream, chosen = 0, turn = 0, spoken = "", spokenAt = 0;

const show = (element, isShown) => { element.hidden = !isShown; };
const shorten = (text) => (text.length > LABEL_SHOWN ? `${Array.from(text).slice(0, LABEL_SHOWN).join("")}…` : text);
// Never "0 %" or "100 %" of what is only nearly so.
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
  // A live camera must not talk without end: the same answer once, and not two within two seconds.
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

// ---- workers: each has an engine of its own, so that photos never wait for each other and nothing is shared

class Helper {
  #waiting = new Map();
  #last = 0;
  #worker;

  constructor() {
    const url = URL.createObjectURL(new Blob([parts.worker], { type: "text/javascript" }));
    this.#worker = new Worker(trusted ? trusted.createScriptURL(url) : url);
    this.#worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    this.#worker.onerror = () => fail("The part of this page that runs the model did not start.");
  }

  ask(verb, message, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, verb, ...message }, transfer);
    });
  }

  open(warm, model = parts.model) {
    // page.html#plain and the like are for comparing kernels; see engine.js.
    const { engine: code, relaxed, labels } = parts;
    this.opened ||= this.ask("open", { code, relaxed, model, labels, warm, kernels: location.hash.slice(1) });
    return this.opened;
  }

  end() {
    this.#worker.terminate();
  }
}

let helpers = [];
const ask = (...message) => helpers[0].ask(...message);

// Has photos classified by as many workers as there are cores; `onResult(result, index)` comes in any order.
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

// What a link would do that leads to bytes.
function save(data, name, type) {
  const url = URL.createObjectURL(new Blob([data], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

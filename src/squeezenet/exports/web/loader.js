// The only script that the page holds as it is. A worker starts while the rest of the page is still read; the model goes
// to it first, then the program is unpacked and started.

document.getElementById("blocked")?.remove(); // which appears after some seconds where no script runs

// Seven bits per character, see `pack` in exports/web_page.py.
function unpack(id) {
  const element = document.getElementById(id);
  if (!element) return null;
  const text = element.textContent, bytes = Number(element.dataset.bytes);
  const out = new Uint8Array(bytes + 2);
  const escaped = [0, 10, 13, 60];
  let at = 0, held = 0, bits = 0;
  const put = (septet) => {
    held = ((held << 7) | septet) & 0x7fff;
    bits += 7;
    if (bits >= 8) out[at++] = held >> (bits -= 8);
  };
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 128) put(code);
    else {
      put(escaped[(code - 1024) >> 7]);
      put(code & 127);
    }
  }
  if (at < bytes) throw new Error("This page is damaged: it was cut or changed on its way.");
  return out.subarray(0, bytes);
}

const trusted = self.trustedTypes?.createPolicy("squeezenet", { createScript: (text) => text, createScriptURL: (text) => text });

function fail(text) {
  const show = (id, words) => Object.assign(document.getElementById(id), { textContent: words, hidden: false });
  show("state", "Cannot run here").className = "failed";
  show("error", text);
  for (const button of document.querySelectorAll(".tools button")) button.disabled = true;
}

// A worker has an engine of its own, so that photos never wait for each other and nothing is shared.
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
    const { engine, relaxed, labels } = parts;
    this.opened ||= this.ask("open", { engine, relaxed, model, labels, warm, kernels: location.hash.slice(1) });
    return this.opened;
  }

  end() {
    this.#worker.terminate();
  }
}

const parts = {}, helpers = [];
const ask = (...message) => helpers[0].ask(...message);

async function startWorker() {
  const canRun = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  if (!self.WebAssembly || !WebAssembly.validate(new Uint8Array(canRun))) {
    throw new Error("This browser has no WebAssembly SIMD, which the model needs. Browsers from 2023 on have it: please update yours.");
  }
  if (!self.DecompressionStream || !self.OffscreenCanvas) {
    throw new Error("This browser is too old for this page: please update it to a version from 2023 or later.");
  }
  parts.worker = await inflateText(unpack("worker"), 1 << 20);
  helpers.push(new Helper());
}

async function startPage() {
  for (const id of ["engine", "relaxed", "labels", "model"]) parts[id] = unpack(id);
  await worker;
  helpers[0].open(6).catch(() => {}); // which `start` reports
  squeezenet.source = document.documentElement.outerHTML; // before anything is changed, for "Save page"
  const text = await inflateText(unpack("page"), 1 << 20);
  const script = document.createElement("script");
  script.textContent = trusted ? trusted.createScript(text) : text;
  document.head.append(script);
  await squeezenet.start();
}

const worker = startWorker();
// For scripts and the console: `await squeezenet.classify(blob)` gives logits, names and times.
self.squeezenet = {
  classify: (image, options = {}) => worker.then(() => ask("classify", { image, map: false, ...options })),
};
squeezenet.ready = new Promise((resolve) => addEventListener("DOMContentLoaded", resolve)).then(startPage);
squeezenet.ready.catch((error) => fail(error.message));

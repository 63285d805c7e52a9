// The only script that the page contains in plain text. It starts a worker while the rest of the page is still being
// read. Starting a worker needs this thread several times, so nothing is laid out until the worker answers, or for half a
// second. Then the rest of the program is unpacked and started.

function block(id) {
  const element = document.getElementById(id);
  return unpack(element?.textContent, element?.dataset.bytes);
}

const showPage = () => { document.documentElement.hidden = false; };

const trusted = self.trustedTypes?.createPolicy("squeezenet", { createScript: (text) => text, createScriptURL: (text) => text });

function fail(text) {
  const show = (id, words) => Object.assign(document.getElementById(id), { textContent: words, hidden: false });
  show("state", "Cannot run here").className = "failed";
  show("error", text);
  showPage();
  for (const button of document.querySelectorAll(".tools button")) button.disabled = true;
}

// Each worker has its own engine, so that photos never wait for each other and nothing is shared. The functions of this
// script that a worker uses are passed to it as text.
class Helper {
  #waiting = new Map();
  #last = 0;
  #worker;

  constructor() {
    const url = URL.createObjectURL(new Blob([workerText, inflate, inflateText], { type: "text/javascript" }));
    this.#worker = new Worker(trusted ? trusted.createScriptURL(url) : url);
    this.#worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    this.started = this.ask("greet");
    this.#worker.onerror = () => fail("The worker that runs the model did not start.");
  }

  ask(verb, message, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, verb, ...message }, transfer);
    });
  }

  open(warm, model = parts.model) {
    // page.html#plain and similar addresses select kernels for comparison; see engine.js.
    this.opened ||= this.ask("open", { ...parts, model, warm, kernels: location.hash.slice(1) });
    return this.opened;
  }

  end() {
    this.#worker.terminate();
  }
}

let workerText;
const parts = {}, helpers = [];
const ask = (...message) => helpers[0].ask(...message);

async function startWorker() {
  const canRun = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  if (!self.WebAssembly || !WebAssembly.validate(new Uint8Array(canRun))) {
    throw new Error("This browser does not support WebAssembly SIMD, which the model needs: please update it to a version from 2023 or later.");
  }
  if (!self.DecompressionStream || !self.OffscreenCanvas) {
    throw new Error("This browser is too old for this page: please update it to a version from 2023 or later.");
  }
  workerText = await inflateText(block("worker"));
  helpers.push(new Helper());
  document.documentElement.hidden = true;
  helpers[0].started.then(showPage);
  setTimeout(showPage, 500);
  for (const id of ["engine", "relaxed"]) parts[id] = await inflate(block(id));
}

async function startPage() {
  document.getElementById("blocked")?.remove(); // shown after some seconds if scripts are blocked
  await worker;
  if (document.getElementById("labels")) parts.labels = block("labels");
  parts.model = block("model");
  helpers[0].open(6).catch(() => {}); // `start` reports it
  await helpers[0].started;
  squeezenet.source = document.documentElement.outerHTML; // the unchanged page, for "Save page"
  const text = await inflateText(block("page"));
  const script = document.createElement("script");
  script.textContent = trusted ? trusted.createScript(text) : text;
  document.head.append(script);
  await squeezenet.start();
}

const worker = startWorker();
worker.catch(() => {}); // `startPage` reports it
// For scripts and the console: `await squeezenet.classify(blob)` returns logits, names and times.
self.squeezenet = {
  classify: (image, options = {}) => worker.then(() => ask("classify", { image, map: false, ...options })),
};
squeezenet.ready = new Promise((resolve) => addEventListener("DOMContentLoaded", resolve)).then(startPage);
squeezenet.ready.catch((error) => fail(error.message));

// node run_model.mjs WEB_PARTS KERNELS FILE.sqz PIXELS: as run_model.c, through WebAssembly.
import { readFileSync, writeSync } from "node:fs";

const [parts, kernels, path, images] = process.argv.slice(2);
const part = (name) => readFileSync(`${parts}/${name}`);
const loadEngine = new Function(`${part("engine.js")}; return loadEngine;`)();
const { engine, kernels: taken } = await loadEngine(part("engine.wasm"), part("relaxed.wasm"), kernels);
if (taken !== kernels) throw new Error(`expected ${kernels} kernels, got ${taken}`);
const bytes = (at, count) => new Uint8Array(engine.memory.buffer, at, count);
const file = readFileSync(path), pixels = readFileSync(images);
const at = engine.web_alloc(file.length);
bytes(at, file.length).set(file);
const status = engine.web_open(at, file.length);
if (status) throw new Error(`status ${status}`);
const image = engine.web_input_size() ** 2 * 3;
const logits = [];
const maps = [];
for (let i = 0; i < pixels.length; i += image) {
  bytes(engine.web_pixels(), image).set(pixels.subarray(i, i + image));
  engine.web_run(1);
  logits.push(bytes(engine.web_logits(), 8 * engine.web_classes()).slice());
  maps.push(bytes(engine.web_map(), 8 * engine.web_classes() * engine.web_map_size() ** 2).slice());
}
const output = Buffer.concat([...logits, ...maps]);
for (let done = 0; done < output.length; ) done += writeSync(1, output, done);

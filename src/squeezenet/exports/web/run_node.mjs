// node run_node.mjs KERNELS FILE.sqz RESIZE_SIZE SQUASH BICUBIC [FEATURES] < IMAGES > LOGITS: runs the page's engine without
// a browser. KERNELS is "plain" or "relaxed"; images are width and height (uint32, little-endian) and RGBA rows; logits are
// doubles, followed, if FEATURES is 1, by the image's feature vector (int32).
import { readFileSync, writeSync } from "node:fs";

const part = (name) => readFileSync(new URL(name, import.meta.url));
const loadEngine = new Function(`${part("engine.js")}; return loadEngine;`)();
const [kernels, path] = process.argv.slice(2, 4);
const how = process.argv.slice(4, 7).map(Number);
const wantsFeatures = process.argv[7] === "1";
const loaded = await loadEngine(part("engine.wasm"), part("relaxed.wasm"), kernels === "plain" ? "plain" : "");
const { engine } = loaded;
if (kernels === "relaxed" && loaded.kernels === "plain") process.exit(77);
const bytes = (at, count) => new Uint8Array(engine.memory.buffer, at, count);
const check = (status) => {
  if (status) throw new Error(`status ${status}`);
};
const file = readFileSync(path);
const at = engine.web_alloc(file.length);
bytes(at, file.length).set(file);
check(engine.web_open(at, file.length));
const input = readFileSync(0);
for (let next = 0; next < input.length; ) {
  const [width, height] = [input.readUInt32LE(next), input.readUInt32LE(next + 4)];
  next += 8;
  check(engine.web_image_begin(width, height, ...how));
  const step = engine.web_strip_rows();
  for (let y = 0; y < height; y += step) {
    const rows = Math.min(step, height - y), size = 4 * width * rows;
    bytes(engine.web_strip(), size).set(input.subarray(next, (next += size)));
    check(engine.web_image_rows(rows));
  }
  check(engine.web_image_end());
  check(engine.web_run(0));
  const parts = [bytes(engine.web_logits(), 8 * engine.web_classes())];
  if (wantsFeatures) parts.push(bytes(engine.web_features(), 4 * engine.web_channels()));
  const output = Buffer.concat(parts);
  for (let done = 0; done < output.length; ) done += writeSync(1, output, done);
}

// node teach.mjs ENGINE.wasm BASE.sqz TASK > NEW.sqz: teaches a head as the page does. TASK holds, little-endian: photos, classes,
// classes kept, bytes of META, bytes of unkn, which may be "auto" (uint32 each), the class of each photo (int32), pixels of all
// photos, META, unkn.
import { readFileSync, writeSync } from "node:fs";

const [wasm, file, task] = process.argv.slice(2).map((path) => readFileSync(path));
const { exports: engine } = (await WebAssembly.instantiate(wasm, {})).instance;
const bytes = (at, count) => new Uint8Array(engine.memory.buffer, at, count);
const check = (status) => {
  if (status) throw new Error(`status ${status}`);
};
const put = (data) => {
  const at = engine.web_alloc(data.length);
  bytes(at, data.length).set(data);
  return at;
};
check(engine.web_open(put(file), file.length));
const [photos, classes, kept, metaBytes, ruleBytes] = [0, 4, 8, 12, 16].map((at) => task.readUInt32LE(at));
const image = engine.web_input_size() ** 2 * 3, width = engine.web_channels();
let at = 20 + 4 * photos;
const codes = [];
for (let i = 0; i < photos; i++, at += image) {
  bytes(engine.web_pixels(), image).set(task.subarray(at, at + image));
  check(engine.web_run(0));
  codes.push(bytes(engine.web_codes(), width).slice());
}
const room = engine.web_teach_room(photos, classes, kept);
if (!room) throw new Error("no memory");
codes.forEach((code, i) => bytes(room + i * width, width).set(code));
bytes(engine.web_teach_classes(), 4 * photos).set(task.subarray(20, 20 + 4 * photos));
check(engine.web_teach());
const [meta, rule] = [task.subarray(at, at + metaBytes), task.subarray(at + metaBytes, at + metaBytes + ruleBytes)];
const made = rule.toString() === "auto" ? engine.web_teach_rule(0, 0) : 0; // the rule that the page makes
const chosen = made ? bytes(engine.web_teach_chunk(), made).slice() : rule;
const places = [put(meta), put(chosen)];
check(engine.web_teach_file(places[0], metaBytes, places[1], chosen.length));
const output = bytes(engine.web_teach_data(), engine.web_teach_bytes()).slice();
for (let done = 0; done < output.length; ) done += writeSync(1, output, done);

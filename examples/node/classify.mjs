// Classify a photo in Node 20 or later, without npm packages:
//
//     squeezenet export imagenette -o imagenette.js
//     node classify.mjs ./imagenette.js photo.ppm
//
// Node decodes no image files, so this reads binary PPM; a package such as sharp gives RGBA pixels of any other format.
import { readFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [script, photo] = process.argv.slice(2);
await import(pathToFileURL(resolve(script)));
const network = globalThis[basename(script, ".js")]; // the variable has the file's name

function readPpm(bytes) {
  const [header, width, height] = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.toString("latin1", 0, 64)) ?? [];
  if (!header) throw new Error("expected a binary PPM (P6) of 8 bits per colour");
  const data = new Uint8Array(4 * width * height).fill(255); // RGBA, opaque
  for (let i = 0, from = header.length; i < data.length; i += 4, from += 3) {
    data.set(bytes.subarray(from, from + 3), i);
  }
  return { width: Number(width), height: Number(height), data };
}

const { top, unknown } = await network.classify(readPpm(readFileSync(photo)));
if (unknown) console.log("none of these, most similar:");
for (const { label, probability } of top.slice(0, 3)) {
  console.log(`${(100 * probability).toFixed(1).padStart(5)} %  ${label}`);
}

"use strict";
// Off the main thread: unpacks the engine and the model, decodes photos, and classifies them. Pixels go through the
// engine's own resize (web_pixels.c); a canvas only hands decoded rows over, unscaled.

let engine, names, geometry, temperature, unknownBelow;

const memory = (Type, at, count) => new Type(engine.memory.buffer, at, count);

// Seven bits per character, see `pack` in export/web_page.py.
function unpack({ text, bytes }) {
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
  if (at < bytes) throw new Error("the page is damaged: it was cut or changed on its way");
  return out.subarray(0, bytes);
}

async function inflate(bytes, limit) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  let size = 0;
  for (let part; !(part = await reader.read()).done; parts.push(part.value)) {
    if ((size += part.value.length) > limit) throw new Error("the model's metadata are too large");
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function check(status, what) {
  const reasons = { 5: "is larger than this page takes", 8: "needs more memory than there is" };
  if (status) throw new Error(`${what} ${reasons[status] || `cannot be used (status ${status})`}`);
}

async function open({ wasm, relaxed, kernels, model, labels }) {
  const [code, more] = await Promise.all([wasm, relaxed].map((packed) => inflate(unpack(packed), 1 << 20)));
  const loaded = await loadEngine(code, more, kernels);
  engine = loaded.engine;
  const file = unpack(model);
  const at = engine.web_alloc(file.length);
  check(at ? 0 : 8, "The model");
  memory(Uint8Array, at, file.length).set(file);
  check(engine.web_open(at, file.length), "The model");
  const packed = memory(Uint8Array, engine.web_meta(), engine.web_meta_bytes()).slice();
  const text = async (bytes) => new TextDecoder().decode(await inflate(bytes, 1 << 23));
  const meta = packed.length ? JSON.parse(await text(packed)) : {};
  const size = engine.web_input_size();
  geometry = { resize_size: size, ...meta.preprocessing };
  temperature = meta.temperature ?? 1;
  unknownBelow = meta.unknown_below ?? 0;
  if (meta.labels && meta.labels.set) names = (await text(unpack(labels))).split("\n");
  else names = meta.labels ? meta.labels.names : Array.from({ length: engine.web_classes() }, (_, i) => String(i));
  setTimeout(warmUp, 0, 6);
  return { size, classes: engine.web_classes(), kernels: loaded.kernels };
}

// Engines compile in a hurry first and well once code has run for a while: that while is better over before a photo comes.
function warmUp(runs) {
  engine.web_run(1);
  if (runs > 1) setTimeout(warmUp, 0, runs - 1);
}

// Hands a bitmap's rows to the engine in strips that `read(y, rows)` gives as RGBA.
function feed(bitmap, read) {
  const { width, height } = bitmap;
  const squash = geometry.resize_mode === "squash" ? 1 : 0;
  check(engine.web_image_begin(width, height, geometry.resize_size, squash, geometry.resample === "bicubic" ? 1 : 0), "The photo");
  const step = engine.web_strip_rows();
  for (let y = 0; y < height; y += step) {
    const rows = Math.min(step, height - y);
    const strip = read(y, rows);
    memory(Uint8Array, engine.web_strip(), strip.length).set(strip);
    engine.web_image_rows(rows);
  }
  check(engine.web_image_end(), "The photo");
}

function feedOpaque(bitmap) {
  let context;
  feed(bitmap, (y, rows) => {
    context ||= new OffscreenCanvas(bitmap.width, rows).getContext("2d", { willReadFrequently: true });
    context.globalCompositeOperation = "copy";
    context.drawImage(bitmap, 0, -y);
    return context.getImageData(0, 0, bitmap.width, rows).data;
  });
}

// A 2D canvas multiplies colours by their alpha and rounds; a texture keeps them as they are in the file.
function feedTransparent(bitmap) {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl || Math.max(bitmap.width, bitmap.height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) === gl.FRAMEBUFFER_COMPLETE) {
    feed(bitmap, (y, rows) => {
      const strip = new Uint8Array(4 * bitmap.width * rows);
      gl.readPixels(0, y, bitmap.width, rows, gl.RGBA, gl.UNSIGNED_BYTE, strip);
      return strip;
    });
  }
  gl.getExtension("WEBGL_lose_context")?.loseContext();
}

// The part of the photo that the network sees, as shares of its width and height.
function frameOf({ width, height }) {
  const crop = engine.web_input_size();
  const { resize_size: size, resize_mode: mode } = geometry;
  const short = Math.min(width, height);
  const [wide, high] = mode === "squash" ? [size, size] : [Math.floor((size * width) / short), Math.floor((size * height) / short)];
  return { left: (wide - crop) / 2 / wide, top: (high - crop) / 2 / high, width: crop / wide, height: crop / high };
}

function rank(logits, count) {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  const highest = logits[order[0]];
  const total = logits.reduce((sum, logit) => sum + Math.exp((logit - highest) / temperature), 0);
  return order.slice(0, count).map((index) => ({
    index,
    label: String(names[index]),
    probability: Math.exp((logits[index] - highest) / temperature) / total,
  }));
}

// The activation maps of some classes, without the border that a padded head adds.
function mapsOf(indices) {
  const side = engine.web_map_size(), border = engine.web_map_border(), classes = engine.web_classes();
  const all = memory(Float64Array, engine.web_map(), side * side * classes);
  const inner = side - 2 * border;
  return indices.map((index) =>
    Float64Array.from({ length: inner * inner }, (_, i) => {
      const y = border + Math.floor(i / inner), x = border + (i % inner);
      return all[(y * side + x) * classes + index];
    }),
  );
}

// Browsers pass over the orientation that a WebP file may carry, or will learn to: it is taken out and applied here.
async function orientWebp(blob) {
  const bytes = async (from, to) => new Uint8Array(await blob.slice(from, to).arrayBuffer());
  const text = (part) => String.fromCharCode(...part);
  const head = await bytes(0, 21);
  if (text(head.subarray(0, 4)) !== "RIFF" || text(head.subarray(8, 16)) !== "WEBPVP8X" || !(head[20] & 8)) return [blob, 1];
  for (let at = 12, chunks = 0; at + 8 <= blob.size && chunks < 64; chunks++) {
    const start = await bytes(at, at + 8);
    const size = new DataView(start.buffer).getUint32(4, true);
    if (text(start.subarray(0, 4)) === "EXIF") {
      const cleared = new Blob([blob.slice(0, 20), new Uint8Array([head[20] & ~8]), blob.slice(21, at), "JUNK", blob.slice(at + 4)]);
      return [cleared, orientationOf(await bytes(at + 8, at + 8 + Math.min(size, 65536)))];
    }
    at += 8 + size + (size & 1);
  }
  return [blob, 1];
}

function orientationOf(exif) {
  // Some writers put "Exif" and two zeros first.
  const start = exif[0] === 69 ? 6 : 0;
  const data = new DataView(exif.buffer, start);
  try {
    const little = data.getUint16(0) === 0x4949;
    const table = data.getUint32(4, little);
    for (let i = 0; i < data.getUint16(table, little); i++) {
      const at = table + 2 + 12 * i;
      if (data.getUint16(at, little) === 274) return data.getUint16(at + 8, little);
    }
  } catch {
    // An EXIF block that cannot be read changes nothing.
  }
  return 1;
}

function turn(bitmap, orientation) {
  const { width: w, height: h } = bitmap;
  const moves = {
    2: [-1, 0, 0, 1, w, 0], 3: [-1, 0, 0, -1, w, h], 4: [1, 0, 0, -1, 0, h], 5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, h, 0], 7: [0, -1, -1, 0, h, w], 8: [0, -1, 1, 0, 0, w],
  };
  if (!moves[orientation]) return bitmap;
  const canvas = new OffscreenCanvas(orientation > 4 ? h : w, orientation > 4 ? w : h);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.setTransform(...moves[orientation]);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}

// Colours as they are in the file, turned upright: that is the contract of docs/format.md.
async function decode(image) {
  const [blob, orientation] = await orientWebp(image);
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  return turn(bitmap, orientation);
}

async function classify({ image, map = true, runs = 1, keep = false }) {
  const start = performance.now();
  let bitmap = image;
  if (image instanceof Blob) {
    bitmap = await decode(image).catch(() => null);
    if (!bitmap) return { unreadable: true };
  }
  const decoded = performance.now();
  feedOpaque(bitmap);
  if (engine.web_image_alpha()) feedTransparent(bitmap);
  const resized = performance.now();
  const times = [];
  for (let run = 0; run < runs; run++) {
    const began = performance.now();
    check(engine.web_run(map ? 1 : 0), "The photo");
    times.push(performance.now() - began);
  }
  const logits = memory(Float64Array, engine.web_logits(), engine.web_classes()).slice();
  const features = memory(Int32Array, engine.web_features(), engine.web_channels()).slice();
  const top = rank(logits, 5);
  const rule = engine.web_unknown();
  const result = {
    logits,
    features,
    unknown: rule < 0 ? top[0].probability < unknownBelow : rule > 0,
    top,
    maps: map ? mapsOf(top.map((one) => one.index)) : [],
    frame: frameOf(bitmap),
    width: bitmap.width,
    height: bitmap.height,
    ms: { decode: decoded - start, resize: resized - decoded, run: times[0], runs: times },
  };
  if (keep) result.bitmap = bitmap;
  else bitmap.close();
  return result;
}

self.onmessage = async ({ data: { id, verb, ...rest } }) => {
  try {
    const result = await (verb === "open" ? open(rest) : classify(rest));
    self.postMessage({ id, result }, result.bitmap ? [result.bitmap] : []);
  } catch (error) {
    self.postMessage({ id, error: String((error && error.message) || error) });
  }
};

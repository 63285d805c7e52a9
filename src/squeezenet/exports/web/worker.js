// Opens the model and classifies photos: in a worker of the page, or wherever an exported script runs.

let engine, names, geometry, meta, temperature, unknownBelow, taughtRule, lesson;
let taughtNames = null;

const memory = (Type, at, count) => new Type(engine.memory.buffer, at, count);

function check(status, what) {
  const reasons = { 5: "is too large for this page", 8: "needs more memory than is available" };
  if (status) throw new Error(`${what} ${reasons[status] || `cannot be used (status ${status})`}`);
}

// A photo that arrives before the model is open is decoded in the meantime.
let whenOpen, isAsked = false;
const opened = new Promise((resolve) => { whenOpen = resolve; });
opened.catch(() => {}); // `open` reports it to the page

function open(message) {
  const opening = start(message);
  whenOpen(opening);
  return opening;
}

async function start({ engine: code, relaxed, kernels, model, labels, warm }) {
  const loaded = await loadEngine(code, relaxed, kernels);
  engine = loaded.engine;
  const at = engine.web_alloc(model.length);
  check(at ? 0 : 8, "The model");
  memory(Uint8Array, at, model.length).set(model);
  check(engine.web_open(at, model.length), "The model");
  const packed = memory(Uint8Array, engine.web_meta(), engine.web_meta_bytes()).slice();
  meta = packed.length ? JSON.parse(await inflateText(packed, 1 << 23)) : {};
  const size = engine.web_input_size(), classes = engine.web_classes();
  geometry = { resize_size: size, ...meta.preprocessing };
  temperature = meta.temperature ?? 1;
  unknownBelow = meta.unknown_below ?? 0;
  if (meta.labels && meta.labels.set) names = (await inflateText(labels)).split("\n");
  else names = meta.labels ? meta.labels.names : Array.from({ length: classes }, (_, i) => String(i));
  setTimeout(warmUp, 0, warm);
  return { size, classes, channels: engine.web_channels(), kernels: loaded.kernels };
}

// Browsers compile code quickly first, and optimise it once it has run for a while. These runs trigger that before the first
// photo arrives; a photo does not wait for them.
function warmUp(runs) {
  if (runs < 1 || isAsked) return;
  engine.web_run(1);
  setTimeout(warmUp, 0, runs - 1);
}

// Times the network on a synthetic photo, and returns a checksum (Adler-32) of its logits to compare with Python's.
function measure({ runs }) {
  const size = engine.web_input_size();
  memory(Uint8Array, engine.web_pixels(), size * size * 3).forEach((_, i, all) => { all[i] = Math.imul(i, 2654435761) >>> 24; });
  const times = Array.from({ length: runs }, () => {
    const began = performance.now();
    check(engine.web_run(0), "The photo");
    return performance.now() - began;
  });
  let a = 1, b = 0;
  for (const byte of memory(Uint8Array, engine.web_logits(), 8 * engine.web_classes())) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return { ms: times.sort((one, other) => one - other)[runs >> 1], sum: b * 65536 + a };
}

// The part of the photo that the network sees, as shares of its width and height.
function frameOf({ width, height }) {
  const crop = engine.web_input_size();
  const { resize_size: size, resize_mode: mode } = geometry;
  const short = Math.min(width, height);
  const [wide, high] = mode === "squash" ? [size, size] : [Math.floor((size * width) / short), Math.floor((size * height) / short)];
  return { left: (wide - crop) / 2 / wide, top: (high - crop) / 2 / high, width: crop / wide, height: crop / high };
}

function rank(logits, count, labels, heat) {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  const highest = logits[order[0]];
  const total = logits.reduce((sum, logit) => sum + Math.exp((logit - highest) / heat), 0);
  return order.slice(0, count).map((index) => ({
    index,
    label: String(labels[index]),
    probability: Math.exp((logits[index] - highest) / heat) / total,
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

async function classify({ image, map = true, runs = 1, keep = false, codes = false, taught = false }) {
  isAsked = true;
  const begin = performance.now();
  let bitmap = image;
  if (image instanceof Blob) {
    bitmap = await decode(image).catch(() => null);
    if (!bitmap) return { unreadable: true };
  }
  const decoded = performance.now();
  await opened;
  const ready = performance.now();
  if (bitmap.data) feedPixels(bitmap);
  else {
    feedOpaque(bitmap);
    if (engine.web_image_alpha()) feedTransparent(bitmap);
  }
  const resized = performance.now();
  const times = [];
  for (let run = 0; run < runs; run++) {
    const began = performance.now();
    check(engine.web_run(map ? 1 : 0), "The photo");
    times.push(performance.now() - began);
  }
  const classes = taught ? (taughtNames || []).length : engine.web_classes();
  const logits = memory(Float64Array, taught && classes ? engine.web_teach_logits() : engine.web_logits(), classes).slice();
  const features = memory(Int32Array, engine.web_features(), engine.web_channels()).slice();
  const top = classes ? rank(logits, 5, taught ? taughtNames : names, taught && !lesson.kept ? 1 : temperature) : undefined;
  const rule = engine.web_unknown();
  const result = {
    logits,
    features,
    unknown: taught ? isStrange() : (rule < 0 ? top[0].probability < unknownBelow : rule > 0),
    top,
    maps: map && !taught ? mapsOf(top.map((one) => one.index)) : [],
    frame: frameOf(bitmap),
    width: bitmap.width,
    height: bitmap.height,
    ms: { decode: decoded - begin, resize: resized - ready, run: times[0], runs: times },
  };
  if (codes) result.codes = memory(Uint8Array, engine.web_codes(), engine.web_channels()).slice();
  if (keep) result.bitmap = bitmap;
  else bitmap.close?.();
  return result;
}

// Computes a new head from the codes of photos, class by class; see csrc/web/web_teach.c.
function teach({ codes, classes, names: given, kept = 0, foreign = new Uint8Array() }) {
  taughtNames = null;
  const own = names.slice(0, kept), taken = new Set(own.flatMap((name) => [name, ...name.split(",")]).map(keyOf));
  for (const name of given) {
    if (taken.has(keyOf(name))) throw new Error(`Two classes are called ${name}: rename one of them`);
    taken.add(keyOf(name));
  }
  const at = engine.web_teach_room(classes.length, given.length, kept);
  check(at ? 0 : 8, "Teaching");
  memory(Uint8Array, at, codes.length).set(codes);
  memory(Int32Array, engine.web_teach_classes(), classes.length).set(classes);
  check(engine.web_teach(), "Teaching");
  const bytes = kept ? 0 : engine.web_teach_rule(put(foreign), foreign.length / engine.web_channels());
  taughtRule = memory(Uint8Array, engine.web_teach_chunk(), bytes).slice();
  taughtNames = own.concat(given);
  const scores = memory(Float64Array, engine.web_teach_scores(), classes.length * given.length).slice();
  const right = classes.filter((own, i) => {
    const mine = scores.subarray(i * given.length, (i + 1) * given.length);
    return mine.indexOf(Math.max(...mine)) === own;
  }).length;
  const photos = given.map((_, own) => classes.filter((one) => one === own).length);
  lesson = { exponent: engine.web_teach_exponent(), gain: engine.web_teach_gain(), kept, photos, right };
  return { scores };
}

// Classes are the same if these keys of their names are equal, as in Python.
const keyOf = (name) => name.normalize("NFKC").replace(/_/g, " ").toUpperCase().toLowerCase().split(/\s+/).filter(Boolean).join(" ");

// Whether the last photo shows none of the classes that were taught.
function isStrange() {
  return taughtNames !== null && taughtRule.length > 0 && engine.web_is_unknown(put(taughtRule)) > 0;
}

function put(bytes) {
  const at = engine.web_alloc(bytes.length);
  check(at ? 0 : 8, "The file");
  memory(Uint8Array, at, bytes.length).set(bytes);
  return at;
}

function forget() {
  taughtNames = null;
  return {};
}

// The file of the model with the new head; keys are sorted, as in Python.
function file() {
  const kept = meta.preprocessing ? { preprocessing: meta.preprocessing } : {};
  if (lesson.kept && "temperature" in meta) kept.temperature = temperature;
  const sorted = (value) => (value && typeof value === "object" && !Array.isArray(value)
    ? Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]))
    : value);
  const text = new TextEncoder().encode(JSON.stringify(sorted({ labels: { names: taughtNames }, provenance: { taught: lesson }, ...kept })));
  check(engine.web_teach_file(put(text), text.length, put(taughtRule), taughtRule.length), "The file");
  return memory(Uint8Array, engine.web_teach_data(), engine.web_teach_bytes()).slice();
}

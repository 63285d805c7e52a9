// Several photos at once, in a table that can be saved as CSV; and the speed test of this device.
let table = [], job = 0;

// The files that were dropped, including those in folders.
async function filesOf(transfer) {
  const entries = Array.from(transfer.items || [], (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return Array.from(transfer.files);
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      if (/^image\//.test(file.type)) files.push(Object.assign(file, { place: entry.fullPath.replace(/^\//, "") }));
      return;
    }
    const reader = entry.createReader();
    for (let found; (found = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length; ) {
      for (const one of found) await walk(one);
    }
  };
  for (const entry of entries) await walk(entry);
  return files.sort((one, other) => (one.place < other.place ? -1 : 1));
}

async function lookAtMany(files) {
  const mine = ++job;
  stopCamera();
  complain("");
  await squeezenet.ready;
  table = [];
  const body = $("table").tBodies[0];
  body.replaceChildren(...files.map((file) => {
    const line = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.append(button(shorten(file.place || file.name), "", () => look(file)));
    line.append(name, part("td", "", "…"), part("td", "share", ""));
    return line;
  }));
  show($("many"), true);
  $("csv").disabled = true;
  const began = performance.now();
  let done = 0;
  const progress = () => { $("count").textContent = `${done} of ${files.length} photos`; };
  progress();
  await look(files[0]);
  await askAll(files, {
    isStopped: () => mine !== job,
    onResult(result, index) {
      if (mine !== job) return;
      table[index] = { file: files[index].place || files[index].name, ...result };
      const [, name, share] = body.rows[index].cells;
      const found = result.unknown ? "none of these" : shorten(result.top?.[0].label.split(",")[0].trim() || "");
      name.textContent = result.unreadable ? "not an image" : found;
      share.textContent = result.unreadable ? "" : percent(result.top[0].probability);
      done++;
      progress();
    },
  });
  if (mine !== job) return;
  const seconds = (performance.now() - began) / 1000;
  $("count").textContent = `${files.length} photos in ${seconds.toFixed(1)} s, ${(files.length / seconds).toFixed(0)} per second`;
  say($("count").textContent);
  $("csv").disabled = false;
}

function saveTable() {
  // Spreadsheets read a text that begins with one of these characters as a formula.
  const cell = (text) => `"${String(text).replace(/^(?=[=+\-@\t\r])/, "'").replace(/"/g, '""')}"`;
  const rows = table.flatMap(({ file, unreadable, unknown, top }) => (unreadable
    ? [[cell(file), "", "", "", "", ""]]
    : top.map(({ label, probability, index }, rank) => [cell(file), rank + 1, index, cell(label), probability, unknown])));
  const lines = [["file", "rank", "class_index", "label", "probability", "is_unknown"], ...rows].map((row) => row.join(","));
  save(lines.map((line) => `${line}\r\n`).join(""), "classes.csv", "text/csv");
}

async function measure() {
  const output = $("measured");
  output.textContent = "Measuring…";
  const { ms, sum } = await squeezenet.measure();
  const bits = facts.check === undefined ? "output not compared" : sum === facts.check ? "output bit-exact" : "output WRONG";
  const line = `squeezenet ${facts.name}: ${ms.toFixed(2)} ms per image, ${squeezenet.kernels} kernels, ${bits}, ` +
    `${navigator.hardwareConcurrency || "?"} cores, ${navigator.userAgent}`;
  output.textContent = line;
  const copied = await navigator.clipboard?.writeText(line).then(() => true, () => false);
  $("measure").textContent = copied ? "Copied" : "Measure";
  say(copied ? "Measured and copied" : "Measured");
}

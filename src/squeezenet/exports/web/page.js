// Connects buttons, dropping and pasting to the rest of the page, and starts the model.

async function look(file) {
  stopCamera();
  const mine = ++turn;
  complain("");
  await squeezenet.ready.catch(() => {});
  setState("Classifying");
  seen = file;
  try {
    const result = await ask("classify", { image: file, keep: true, taught: isTeaching });
    if (mine !== turn) return;
    if (result.unreadable) {
      complain(`${file.name ? `“${shorten(file.name)}”` : "This"} is not an image that this browser can read. JPEG, PNG, WebP, GIF and BMP work.`);
    } else {
      chosen = 0;
      draw(result.bitmap);
      if (result.top) present(result);
    }
  } catch (error) {
    complain(`${error.message}.`);
  }
  setState("Ready", "ready");
}

function pick(list) {
  const files = Array.from(list || []);
  const images = files.filter(({ type }) => type.startsWith("image/"));
  if (isTeaching && images.length > 1) complain("To add several photos, drop them on the card of their class.");
  else if (images.length > 1) lookAtMany(images);
  else if (files.length) look(images[0] || files[0]);
  return files.length > 0;
}

$("choose").onclick = () => $("file").click();
$("stage").onclick = () => $("stage").classList.contains("empty") && $("file").click();
$("file").onchange = () => {
  pick($("file").files);
  $("file").value = "";
};
$("camera").onclick = startCamera;
$("shoot").onclick = shoot;
$("stop").onclick = endLive;
$("csv").onclick = saveTable;
$("measure").onclick = measure;
$("mode-classify").onclick = () => setMode(false);
$("mode-teach").onclick = () => setMode(true);
$("add-class").onclick = addClass;
$("undo").onclick = undo;
$("keep").onchange = changed;
$("save-sqz").onclick = saveSqz;
$("save-page").onclick = savePage;
$("slider").oninput = () => { $("heat").style.opacity = $("slider").value / 100; };
addEventListener("paste", (event) => {
  if (event.target.matches?.("input[type=text]")) return;
  if (!pick(event.clipboardData.files)) complain("The clipboard does not contain an image.");
});
let depth = 0; // dragenter and dragleave are also sent for every element inside
const dropping = (change) => {
  depth = change ? Math.max(0, depth + change) : 0;
  document.body.classList.toggle("dropping", depth > 0);
};
addEventListener("dragenter", () => dropping(1));
addEventListener("dragleave", () => dropping(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  dropping(0);
  if (!pick(await filesOf(event.dataTransfer))) complain("Drop image files. Links to images do not work, because this page uses no network.");
});
addEventListener("keydown", ({ key }) => key === "Escape" && stream && endLive());
document.head.append(part("style", "", lateStyle));
new ResizeObserver(placeFrame).observe($("stage"));

reset();
Object.assign(squeezenet, {
  async start() {
    facts = JSON.parse($("facts").textContent);
    document.title = $("name").textContent = shorten(facts.name);
    $("bytes").textContent = kilobytes(facts.file_bytes);
    $("ratio").textContent = `${(facts.fp32_bytes / facts.file_bytes).toFixed(1)}×`;
    $("page-bytes").textContent = `one file of ${kilobytes(facts.page_bytes)}`;
    const taught = $("taught") && block("taught");
    for (const id of ["page", "worker", "taught", ...Object.keys(parts)]) $(id)?.remove();
    const opened = await helpers[0].open();
    squeezenet.kernels = opened.kernels;
    Object.assign(facts, { channels: opened.channels, classes: opened.classes });
    keepable = opened.classes;
    setState(`Ready: ${String(opened.classes).replace(/\B(?=...$)/, ",")} classes`, "ready");
    if (taught) await restoreLesson(taught);
    performance.mark("ready");
  },
  classifyAll: (images, options = {}) => squeezenet.ready.then(() => askAll(images, options)),
  measure: (runs = 30) => squeezenet.ready.then(() => ask("measure", { runs })),
});

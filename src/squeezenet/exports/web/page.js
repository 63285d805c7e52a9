"use strict";
// The page: what people see and press. The work is done in worker.js.
(() => {
  const $ = (id) => document.getElementById(id);
  const LABEL_SHOWN = 120; // characters of a name; files may bring names of any length
  const CAN_RUN = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  let worker, last, stream, chosen = 0, turn = 0, spoken = "", spokenAt = 0;
  const waiting = new Map();

  const show = (element, isShown) => { element.hidden = !isShown; };
  const shorten = (text) => (text.length > LABEL_SHOWN ? `${Array.from(text).slice(0, LABEL_SHOWN).join("")}…` : text);
  // Never "0 %" or "100 %" of what is only nearly so.
  function percent(share) {
    if (share < 0.0005) return "< 0.1 %";
    if (share < 0.0995 || share >= 0.995) return `${Math.min(100 * share, 99.9).toFixed(1)} %`;
    return `${(100 * share).toFixed(0)} %`;
  }
  const kilobytes = (bytes) => (bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(2)} MB`);

  function setState(text, kind) {
    $("state").textContent = text;
    $("state").className = kind || "";
  }

  function fail(text) {
    setState("Cannot run here", "failed");
    complain(text);
    for (const button of document.querySelectorAll(".tools button")) button.disabled = true;
  }

  function complain(text) {
    $("error").textContent = text;
    show($("error"), Boolean(text));
  }

  function say(text) {
    // A live camera must not talk without end: the same answer once, and not two within two seconds.
    const now = performance.now();
    if (text === spoken || (stream && now - spokenAt < 2000)) return;
    [spoken, spokenAt] = [text, now];
    $("say").textContent = text;
  }

  // ---- the worker

  function ask(verb, message, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = ++ask.last;
      waiting.set(id, { resolve, reject });
      worker.postMessage({ id, verb, ...message }, transfer);
    });
  }
  ask.last = 0;

  function startWorker() {
    const url = URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" }));
    const policy = self.trustedTypes?.createPolicy("squeezenet", { createScriptURL: (text) => text });
    worker = new Worker(policy ? policy.createScriptURL(url) : url);
    worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = waiting.get(id);
      waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    worker.onerror = () => fail("The part of this page that runs the model did not start.");
  }

  const block = (id) => ($(id) ? { text: $(id).textContent, bytes: Number($(id).dataset.bytes) } : null);

  async function start() {
    const facts = JSON.parse($("facts").textContent);
    document.title = $("name").textContent = shorten(facts.name);
    $("bytes").textContent = kilobytes(facts.file_bytes);
    $("ratio").textContent = `${(facts.fp32_bytes / facts.file_bytes).toFixed(1)}×`;
    $("page-bytes").textContent = `one file of ${kilobytes(facts.page_bytes)}`;
    if (!self.WebAssembly || !WebAssembly.validate(new Uint8Array(CAN_RUN))) {
      throw new Error("This browser has no WebAssembly SIMD, which the model needs. Browsers from 2023 on have it: please update yours.");
    }
    if (!self.DecompressionStream || !self.OffscreenCanvas) {
      throw new Error("This browser is too old for this page: please update it to a version from 2023 or later.");
    }
    startWorker();
    const blocks = { wasm: block("engine"), relaxed: block("relaxed"), model: block("model"), labels: block("labels") };
    // page.html#plain and the like are for comparing kernels; see engine.js.
    const opened = await ask("open", { ...blocks, kernels: location.hash.slice(1) });
    for (const id of ["engine", "relaxed", "model", "labels"]) $(id)?.remove();
    setState(`Ready: ${opened.classes.toLocaleString("en")} classes`, "ready");
    self.squeezenet.kernels = opened.kernels;
    performance.mark("ready");
  }

  // ---- photos

  async function open(file) {
    stopCamera();
    const mine = ++turn;
    complain("");
    await ready.catch(() => {});
    setState("Looking", "");
    try {
      const result = await ask("classify", { image: file, keep: true });
      if (mine !== turn) return;
      if (result.unreadable) {
        complain(`${file.name ? `“${shorten(file.name)}”` : "That"} is not an image that this browser can read. JPEG, PNG, WebP, GIF and BMP work.`);
      } else {
        chosen = 0;
        draw(result.bitmap);
        present(result);
      }
    } catch (error) {
      complain(`${error.message}.`);
    }
    setState("Ready", "ready");
  }

  function draw(bitmap) {
    const canvas = $("photo");
    const scale = Math.min(1, 1600 / Math.max(bitmap.width, bitmap.height));
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; // transparency lies over white, as for the network
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    show(canvas, true);
    show($("empty"), false);
    $("stage").classList.remove("empty");
  }

  // ---- results

  function present(result) {
    last = result;
    chosen = Math.min(chosen, result.top.length - 1);
    const [name, ...others] = result.top[0].label.split(",");
    document.querySelector(".panel").classList.remove("idle");
    const best = shorten(name.trim()) || "(no name)";
    $("eyebrow").textContent = result.unknown ? "Unknown" : `${percent(result.top[0].probability)} sure`;
    $("best").textContent = result.unknown ? "None of these" : best;
    $("also").firstElementChild.textContent = result.unknown ? `nearest: ${best}` : shorten(others.join(",").trim());
    $("time").textContent = `${result.ms.run.toFixed(1)} ms`;
    $("photo").setAttribute("aria-label", `Photo: ${$("best").textContent}`);
    for (const id of ["strength", "heat-note", "frame"]) show($(id), true);
    const rows = $("results").children;
    if (rows.length !== result.top.length || !rows[0].firstElementChild.dataset.rank) {
      $("results").replaceChildren(...result.top.map((_, rank) => row(rank)));
    }
    result.top.forEach(({ label, probability }, rank) => {
      const button = $("results").children[rank].firstElementChild;
      const [text, share, track] = button.children;
      text.textContent = shorten(label.split(",")[0].trim()) || "(no name)";
      text.title = shorten(label);
      share.textContent = percent(probability);
      track.firstElementChild.style.transform = `scaleX(${probability})`;
    });
    choose(chosen);
    say(result.unknown ? `None of these; nearest: ${best}` : `${best}, ${percent(result.top[0].probability)}`);
  }

  function row(rank) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.rank = rank;
    const part = (tag, name) => Object.assign(document.createElement(tag), { className: name });
    const track = part("span", "track");
    track.append(part("span", "bar"));
    button.append(part("bdi", ""), part("span", "share"), track);
    button.onclick = () => choose(rank);
    item.append(button);
    return item;
  }

  function blankRows() {
    return Array.from({ length: 5 }, () => {
      const item = document.createElement("li");
      item.className = "blank";
      item.setAttribute("aria-hidden", "true");
      item.append(document.createElement("i"));
      return item;
    });
  }

  function choose(rank) {
    chosen = rank;
    for (const { firstElementChild: button } of $("results").children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.rank) === rank));
    }
    drawHeat();
  }

  // Where the network sees the chosen class: its activation map, from clear to yellow, over the part that it saw.
  function drawHeat() {
    const map = last.maps[chosen];
    const side = Math.sqrt(map.length);
    const highest = map.reduce((most, value) => Math.max(most, value), Number.MIN_VALUE);
    const small = new OffscreenCanvas(side, side);
    const colors = new ImageData(side, side);
    map.forEach((value, i) => {
      const heat = Math.max(0, value) / highest;
      colors.data.set([255, 60 + 165 * heat, 20 + 40 * heat ** 3, 255 * heat ** 1.4], 4 * i);
    });
    small.getContext("2d").putImageData(colors, 0, 0);
    const canvas = $("heat");
    canvas.width = canvas.height = Math.max(side, Math.min(24 * side, 960));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    canvas.style.opacity = $("slider").value / 100;
    placeFrame();
  }

  function placeFrame() {
    if (!last || $("frame").hidden) return;
    const { clientWidth, clientHeight } = $("stage");
    const scale = Math.min(clientWidth / last.width, clientHeight / last.height);
    const [width, height] = [last.width * scale, last.height * scale];
    const style = $("frame").style;
    style.left = `${(clientWidth - width) / 2 + last.frame.left * width}px`;
    style.top = `${(clientHeight - height) / 2 + last.frame.top * height}px`;
    style.width = `${last.frame.width * width}px`;
    style.height = `${last.frame.height * height}px`;
  }

  // ---- the camera

  function setCamera(isOn) {
    for (const id of ["video", "live", "shoot", "stop"]) show($(id), isOn);
    for (const id of ["choose", "camera"]) show($(id), !isOn);
    if (isOn) show($("empty"), false);
    $("stage").classList.toggle("empty", !isOn && $("photo").hidden);
  }

  function stopCamera() {
    if (!stream) return;
    for (const track of stream.getTracks()) track.stop();
    stream = $("video").srcObject = null;
    turn++;
    setCamera(false);
  }

  async function startCamera() {
    complain("");
    if (!navigator.mediaDevices) {
      complain("Browsers give pages the camera only over https or from a file.");
      return;
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    } catch (error) {
      complain(error.name === "NotFoundError" ? "No camera was found." : "The camera may not be used: allow it in the browser's settings.");
      return;
    }
    const video = $("video");
    video.srcObject = stream;
    await video.play();
    show($("photo"), false);
    setCamera(true);
    $("shoot").focus();
    const mine = ++turn;
    chosen = 0;
    while (stream && mine === turn) {
      await new Promise((resolve) => requestAnimationFrame(resolve));
      if (!stream || mine !== turn) break;
      const frame = await createImageBitmap(video).catch(() => null);
      if (!frame) continue;
      try {
        const result = await ask("classify", { image: frame }, [frame]);
        if (mine === turn) present(result);
      } catch (error) {
        complain(`${error.message}.`);
        stopCamera();
      }
    }
  }

  async function shoot() {
    const video = $("video");
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    await open(await canvas.convertToBlob({ type: "image/png" }));
    $("choose").focus();
  }

  function endLive() {
    stopCamera();
    if ($("photo").hidden) clear();
    $("camera").focus();
  }

  function clear() {
    last = undefined;
    spoken = "";
    for (const id of ["strength", "heat-note", "frame", "photo"]) show($(id), false);
    show($("empty"), true);
    $("stage").classList.add("empty");
    document.querySelector(".panel").classList.add("idle");
    $("eyebrow").textContent = "What is it?";
    $("best").textContent = "No photo yet";
    $("also").firstElementChild.textContent = "";
    $("time").textContent = "–";
    $("results").replaceChildren(...blankRows());
  }

  // ---- ways in

  const pick = (list) => {
    const files = Array.from(list || []);
    const file = files.find(({ type }) => type.startsWith("image/")) || files[0];
    if (file) open(file);
    return Boolean(file);
  };
  $("choose").onclick = () => $("file").click();
  $("stage").onclick = () => $("stage").classList.contains("empty") && $("file").click();
  $("file").onchange = () => {
    pick($("file").files);
    $("file").value = "";
  };
  $("camera").onclick = startCamera;
  $("shoot").onclick = shoot;
  $("stop").onclick = endLive;
  $("slider").oninput = () => { $("heat").style.opacity = $("slider").value / 100; };
  addEventListener("paste", (event) => {
    if (!pick(event.clipboardData.files)) complain("The clipboard holds no image.");
  });
  let depth = 0; // dragenter and dragleave also come for every element inside
  const dropping = (change) => {
    depth = change ? Math.max(0, depth + change) : 0;
    document.body.classList.toggle("dropping", depth > 0);
  };
  addEventListener("dragenter", () => dropping(1));
  addEventListener("dragleave", () => dropping(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    dropping(0);
    if (!pick(event.dataTransfer.files)) complain("Drop an image file: pages without a network cannot follow links to images.");
  });
  addEventListener("keydown", ({ key }) => key === "Escape" && stream && endLive());
  new ResizeObserver(placeFrame).observe($("stage"));

  clear();
  // The model comes after this script in the file, so that the page is on screen while the rest is read.
  const ready = new Promise((resolve) => addEventListener("DOMContentLoaded", resolve)).then(start);
  ready.catch((error) => fail(error.message));
  // For scripts and the console: `await squeezenet.classify(blob)` gives logits, names and times.
  self.squeezenet = {
    ready,
    classify: (image, options = {}) => ready.then(() => ask("classify", { image, map: false, ...options })),
  };
})();

// One photo and its answer: the picture, the classes, the heat map.
function draw(bitmap) {
  const canvas = $("photo");
  const scale = Math.min(1, 1600 / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // white behind transparent pixels, as for the network
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  show(canvas, true);
  show($("empty"), false);
  $("stage").classList.remove("empty");
}

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
  for (const id of ["strength", "heat-note", "frame"]) show($(id), Boolean(result.maps.length));
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
  const choice = button(undefined, "", () => choose(rank));
  choice.dataset.rank = rank;
  const track = part("span", "track");
  track.append(part("span", "bar"));
  choice.append(part("bdi", ""), part("span", "share"), track);
  item.append(choice);
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

// Draws the activation map of the chosen class, from transparent to yellow, over the part of the photo that the network
// reads.
function drawHeat() {
  const map = last.maps[chosen];
  if (!map) return;
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

function reset() {
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


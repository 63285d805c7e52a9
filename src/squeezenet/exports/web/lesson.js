// The cards of the classes, the accuracy, and the photos that may be in the wrong class.
const MOST_DOUBTFUL = 8;

function setMode(teaches) {
  isTeaching = teaches;
  show($("teach"), teaches);
  $("mode-teach").setAttribute("aria-pressed", String(teaches));
  $("mode-classify").setAttribute("aria-pressed", String(!teaches));
  document.body.classList.toggle("teaching", teaches);
  if (teaches && !lesson.length) lesson = ["", "", ""].map((name) => ({ name, photos: [] }));
  if (teaches) drawLesson();
  if (seen && !stream) look(seen);
  else if (!stream) reset();
}

function card(one, index) {
  const isOther = index < 0, number = `class ${index + 1}`;
  const item = part(isOther ? "div" : "li", "card");
  const name = isOther ? part("h3", "", "Something else") :
    Object.assign(part("input", ""), { type: "text", value: one.name, placeholder: `Class ${index + 1}`, maxLength: 80 });
  if (!isOther) name.setAttribute("aria-label", `Name of ${number}`);
  name.onchange = () => change(() => { lesson[index].name = name.value.normalize("NFC"); });
  const called = () => (isOther ? "something else" : nameOf(lesson[index], index));
  const strip = part("div", "strip");
  strip.setAttribute("aria-hidden", "true");
  const file = Object.assign(part("input", ""), { type: "file", accept: "image/*", multiple: true, hidden: true });
  file.setAttribute("aria-label", `Photos of ${isOther ? "something else" : number}`);
  file.onchange = () => addPhotos(index, Array.from(file.files)).then(() => { file.value = ""; });
  const add = button("Add photos", "", () => file.click());
  const film = button("Hold to record", "hold");
  film.title = "Hold this button, or the space bar on it: the camera's pictures are added to this class";
  film.onpointerdown = (event) => {
    film.setPointerCapture?.(event.pointerId);
    hold(index);
  };
  film.onpointerup = film.onpointercancel = film.onlostpointercapture = release;
  film.oncontextmenu = (event) => event.preventDefault();
  film.onkeydown = (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    if (!event.repeat) hold(index);
  };
  film.onkeyup = film.onblur = release;
  const remove = button("×", "remove", () => change(() => lesson.splice(index, 1)));
  remove.setAttribute("aria-label", `Remove ${number}`);
  const row = part("div", "row");
  row.append(add, film, file);
  item.append(name, isOther ? part("p", "note", "Photos that show none of the classes, so that the model can recognise such photos.") : remove, part("p", "count"), strip, row);
  item.ondragover = (event) => event.preventDefault();
  item.ondrop = async (event) => {
    event.preventDefault();
    event.stopPropagation();
    dropping(0);
    addPhotos(index, await filesOf(event.dataTransfer));
    say(`Photos are added to ${called()}`);
  };
  return item;
}

function drawLesson() {
  const list = $("classes"), other = $("other");
  show($("keeping"), keepable);
  show(other, !kept());
  $("keep").nextSibling.data = ` Keep the model's ${keepable} classes`;
  // Existing cards are reused, so that focus and a held button stay.
  while (list.children.length >= Math.max(1, lesson.length)) list.lastElementChild.remove();
  lesson.forEach((one, index) => {
    const isOther = index === lesson.length - 1, place = isOther ? other : list;
    if (!place.children[isOther ? 0 : index]) place.append(card(one, isOther ? -1 : index));
    const item = place.children[isOther ? 0 : index], name = item.firstElementChild;
    if (!isOther && name.value !== one.name && document.activeElement !== name) name.value = one.name;
    item.querySelector(".count").textContent = one.photos.length === 1 ? "1 photo" : `${one.photos.length} photos`;
    const thumbs = one.photos.map(({ thumb }) => thumb).filter(Boolean).slice(-6);
    item.querySelector(".strip").replaceChildren(...thumbs.map((thumb) => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
      canvas.getContext("2d").drawImage(thumb, 0, 0);
      return canvas;
    }));
  });
  $("undo").disabled = !pasts.length;
  for (const id of ["save-page", "save-sqz"]) $(id).disabled = !judged;
  drawJudged();
}

function drawJudged() {
  const text = $("judged"), list = $("doubtful");
  list.replaceChildren();
  show($("suspects"), Boolean(judged?.doubtful.length));
  if (!judged) {
    text.textContent = "Name two classes and add a photo to each: the model then learns them. Ten photos per class are a good start.";
    return;
  }
  const { right, count, doubtful } = judged;
  $("suspects").firstElementChild.textContent = doubtful.length === 1 ? "Is this photo in the right class?" :
    `Are these ${Math.min(doubtful.length, MOST_DOUBTFUL)} photos in the right class?`;
  if (!count) {
    text.textContent = "Done. Add a second photo to each class to measure the accuracy.";
    return;
  }
  const [low, high] = interval(right, count);
  text.textContent = `${right} of ${count} photos are classified correctly when each is left out of teaching: ${Math.round((100 * right) / count)} %` +
    ` (95 % confidence interval: ${low} to ${high} %).`;
  say(text.textContent);
  for (const { photo, place, index, best } of doubtful.slice(0, MOST_DOUBTFUL)) {
    if (!lesson[best] || !lesson[index]?.photos.includes(photo)) continue; // changed since
    const item = part("li", "");
    if (photo.thumb) item.append(photo.thumb);
    const from = nameOf(lesson[index], index), to = nameOf(lesson[best], best);
    item.append(part("bdi", "", `${shorten(from)}, photo ${place + 1}: looks like ${shorten(to)}`));
    const take = () => {
      const mine = lesson[index].photos;
      return mine.splice(mine.indexOf(photo), 1);
    };
    item.append(
      button(`Move to ${shorten(to)}`, "", () => change(() => lesson[best].photos.push(...take().filter(({ codes }) => !isIn(lesson[best], codes))))),
      button("Remove", "", () => change(take)),
    );
    list.append(item);
  }
}

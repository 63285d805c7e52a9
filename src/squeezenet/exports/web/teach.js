// Teaching: classes, their photos as feature codes, and the head that a worker makes of them. The photos themselves are
// let go; what stays is a byte for each channel, and a thumbnail as long as the page is open.
let lesson = [], pasts = [], judged = null, holding = null, isTeaching = false, seen = null;
let learning = null, mustLearnAgain = false;

const nameOf = (one, index) => one.name.trim() || `class ${index + 1}`;
const copyOf = (classes) => classes.map((one) => ({ ...one, photos: [...one.photos] }));
const shown = () => lesson.map((one, index) => ({ ...one, index })).filter((one) => one.photos.length);

function change(how) {
  pasts = [...pasts.slice(-49), copyOf(lesson)];
  how();
  drawLesson();
  return learn();
}

function undo() {
  if (!pasts.length) return;
  lesson = pasts.pop();
  drawLesson();
  say("Undone");
  learn();
}

function addClass() {
  change(() => lesson.push({ name: "", photos: [] }));
  $("classes").lastElementChild.querySelector("input").focus();
}

function thumbnail(image) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  const { width, height } = image instanceof HTMLVideoElement ? { width: image.videoWidth, height: image.videoHeight } : image;
  const side = Math.min(width, height);
  canvas.getContext("2d").drawImage(image, (width - side) / 2, (height - side) / 2, side, side, 0, 0, 64, 64);
  return canvas;
}

async function addPhotos(index, files) {
  const target = lesson[index];
  pasts = [...pasts.slice(-49), copyOf(lesson)];
  let unreadable = 0, complaint = "";
  const found = [];
  await squeezenet.ready;
  setState(`Reading ${files.length} photos`);
  try {
    await askAll(files, {
      codes: true,
      keep: true,
      onResult({ codes, bitmap }, at) {
        if (!codes) unreadable++;
        else found[at] = { codes, thumb: thumbnail(bitmap) };
        bitmap?.close();
      },
    });
    target.photos.push(...found.filter(Boolean));
    complaint = unreadable ? `${unreadable} of ${files.length} files are not images that this browser can read.` : "";
  } catch (error) {
    complaint = `${error.message}.`;
  }
  seen = files.findLast((_, at) => found[at]) ?? seen;
  complain("");
  drawLesson();
  await learn();
  if (complaint) complain(complaint); // learning looks at a photo, which clears what was said before
  setState("Ready", "ready");
}

// The camera's frames go into a class for as long as its button is held; each has been looked at anyway.
function frameCame(result) {
  const now = performance.now();
  if (!holding || now - holding.last < 120) return;
  holding.last = now;
  holding.target.photos.push({ codes: result.codes, thumb: thumbnail($("video")) });
  drawLesson();
}

async function hold(index) {
  pasts = [...pasts.slice(-49), copyOf(lesson)];
  holding = { target: lesson[index], last: 0 };
  if (!stream) await startCamera();
}

function release() {
  if (!holding) return;
  holding = null;
  learn();
}

// One head at a time; what changes meanwhile asks for another.
function learn() {
  if (learning) {
    mustLearnAgain = true;
    return learning;
  }
  learning = learnOnce().catch((error) => complain(`${error.message}.`)).then(() => {
    learning = null;
    if (mustLearnAgain) {
      mustLearnAgain = false;
      return learn();
    }
    return drawLesson();
  });
  return learning;
}

async function learnOnce() {
  const classes = shown();
  judged = null;
  if (classes.length < 2) {
    await ask("forget", {});
    return;
  }
  const photos = classes.flatMap((one, at) => one.photos.map((photo, place) => ({ photo, place, at, index: one.index })));
  const names = classes.map((one) => nameOf(one, one.index));
  const width = photos[0].photo.codes.length;
  const codes = new Uint8Array(photos.length * width);
  photos.forEach(({ photo }, i) => codes.set(photo.codes, i * width));
  const { scores } = await ask("teach", { codes, classes: Int32Array.from(photos, ({ at }) => at), names });
  const answers = photos.filter(({ at }) => classes[at].photos.length > 1).map((one) => {
    const mine = scores.subarray(photos.indexOf(one) * names.length, (photos.indexOf(one) + 1) * names.length);
    const best = mine.indexOf(Math.max(...mine));
    return { ...one, best: classes[best].index, margin: mine[best] - mine[one.at] };
  });
  const doubtful = answers.filter((one) => one.best !== one.index).sort((one, other) => other.margin - one.margin);
  judged = { count: answers.length, right: answers.length - doubtful.length, doubtful };
  if (seen && !stream) await look(seen);
}

// Where the true share lies, nineteen times of twenty (Wilson).
function interval(right, count) {
  const z = 1.96, share = right / count;
  const middle = share + (z * z) / (2 * count), half = z * Math.sqrt((share * (1 - share)) / count + (z * z) / (4 * count * count));
  return [middle - half, middle + half].map((value) => Math.round((100 * value) / (1 + (z * z) / count)));
}

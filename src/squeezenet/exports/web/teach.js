// Teaching: classes, the feature codes of their photos, and the head that a worker computes from them. Photos are not
// kept: each leaves one byte per channel, and a thumbnail while the page is open.
// The last entry of `lesson` has the photos that show none of the classes.
let lesson = [], pasts = [], judged = null, holding = null, isTeaching = false, seen = null;
let learning = null, mustLearnAgain = false, keepable;

const nameOf = (one, index) => one.name.trim() || `class ${index + 1}`;
const copyOf = (classes) => classes.map((one) => ({ ...one, photos: [...one.photos] }));
const shown = () => lesson.slice(0, -1).map((one, index) => ({ ...one, index })).filter((one) => one.photos.length);
const kept = () => ($("keep").checked ? keepable : 0);
const isIn = (one, codes) => one.photos.some((photo) => photo.codes.every((code, i) => code === codes[i]));

function change(how) {
  pasts = [...pasts.slice(-49), copyOf(lesson)];
  how();
  return changed();
}

function changed() {
  if (judged) judged.doubtful = []; // they refer to the old positions of classes
  drawLesson();
  return learn();
}

function undo() {
  if (!pasts.length) return;
  lesson = pasts.pop();
  changed();
  say("Undone");
}

function addClass() {
  change(() => lesson.splice(-1, 0, { name: "", photos: [] }));
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
  const target = lesson.at(index);
  pasts = [...pasts.slice(-49), copyOf(lesson)];
  let unreadable = 0, twice = 0, complaint = "";
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
    for (const one of found.filter(Boolean)) isIn(target, one.codes) ? twice++ : target.photos.push(one);
    complaint = [
      unreadable && `${unreadable} of ${files.length} files are not images that this browser can read.`,
      twice && `${twice} of ${files.length} photos are already in this class, and count only once.`,
    ].filter(Boolean).join(" ");
  } catch (error) {
    complaint = `${error.message}.`;
  }
  seen = files.findLast((_, at) => found[at]) ?? seen;
  complain("");
  drawLesson();
  await learn();
  if (complaint) complain(complaint); // after learning, which clears earlier messages
}

// Adds camera frames to a class while its button is held; every frame has been classified anyway.
function frameCame(result) {
  const now = performance.now();
  if (!holding || now - holding.last < 120 || isIn(holding.target, result.codes)) return;
  holding.last = now;
  holding.target.photos.push({ codes: result.codes, thumb: thumbnail($("video")) });
  drawLesson();
}

async function hold(index) {
  pasts = [...pasts.slice(-49), copyOf(lesson)];
  holding = { target: lesson.at(index), last: 0 };
  if (!stream) await startCamera();
}

function release() {
  if (!holding) return;
  holding = null;
  learn();
}

// Computes one head at a time; a change in the meantime causes another run.
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
    setState(judged ? `Ready: ${kept() + shown().length} classes` : "Ready", "ready");
    return drawLesson();
  });
  return learning;
}

async function learnOnce() {
  const classes = shown();
  judged = null;
  if (classes.length + Math.min(1, kept()) * classes.length < 2) {
    await ask("forget", {});
    return;
  }
  const photos = classes.flatMap((one, at) => one.photos.map((photo, place) => ({ photo, place, at, index: one.index })));
  const names = classes.map((one) => nameOf(one, one.index));
  const width = photos[0].photo.codes.length;
  const codes = new Uint8Array(photos.length * width);
  photos.forEach(({ photo }, i) => codes.set(photo.codes, i * width));
  const foreign = Uint8Array.from(lesson.at(-1).photos.flatMap((photo) => Array.from(photo.codes)));
  const { scores } = await ask("teach", { codes, classes: Int32Array.from(photos, ({ at }) => at), names, foreign, kept: kept() });
  const answers = photos.filter(({ at }) => classes[at].photos.length > 1).map((one) => {
    const mine = scores.subarray(photos.indexOf(one) * names.length, (photos.indexOf(one) + 1) * names.length);
    const best = mine.indexOf(Math.max(...mine));
    return { ...one, best: classes[best].index, margin: mine[best] - mine[one.at] };
  });
  const doubtful = answers.filter((one) => one.best !== one.index).sort((one, other) => other.margin - one.margin);
  judged = { count: answers.length, right: answers.length - doubtful.length, doubtful };
  if (seen && !stream) await look(seen);
}

// The 95 % confidence interval of a share, in percent (Wilson).
function interval(right, count) {
  const z = 1.96, share = right / count;
  const middle = share + (z * z) / (2 * count), half = z * Math.sqrt((share * (1 - share)) / count + (z * z) / (4 * count * count));
  return [middle - half, middle + half].map((value) => Math.round((100 * value) / (1 + (z * z) / count)));
}

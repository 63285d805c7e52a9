// The last part of an exported script: opens the model and classifies photos on the thread that loaded the script.

const ofText = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

async function openHere() {
  const part = (name) => embedded[name] && ofText(embedded[name]);
  const [engine, relaxed] = await Promise.all(["engine", "relaxed"].map((name) => inflate(part(name))));
  const { size } = await open({ engine, relaxed, model: part("model"), labels: part("labels"), warm: 0 });
  return { size, classes: names.map(String) };
}

async function classifyHere(image, options) {
  await ready;
  let source = image;
  if (image.data) {
    const { width, height, data } = image;
    if (data.length !== 4 * width * height) throw new TypeError(`expected ${width} x ${height} RGBA pixels, got ${data.length} bytes`);
  } else if (!(image instanceof Blob)) {
    await image.decode?.();
    source = await createImageBitmap(image, UNCHANGED);
  }
  const answer = await classify({ map: false, ...options, image: source });
  if (answer.unreadable) throw new TypeError("expected an image that this browser can read");
  return answer;
}

const ready = openHere();
ready.catch(() => {}); // each call of classify reports it
Object.defineProperty(globalThis, embedded.name, { value: { ready, classify: classifyHere }, configurable: true, writable: true });

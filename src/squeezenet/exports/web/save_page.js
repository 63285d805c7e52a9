// Saves the taught model: as a .sqz file, or as a copy of this page with the new model and the codes of the photos.

// Seven bits per character, see `pack` in exports/web_page.py.
function pack(bytes) {
  const escaped = [0, 10, 13, 60];
  const septets = new Uint8Array(Math.ceil((bytes.length * 8) / 7));
  let at = 0, held = 0, bits = 0;
  for (const byte of bytes) {
    held = ((held << 8) | byte) & 0x7fff;
    for (bits += 8; bits >= 7; ) septets[at++] = (held >> (bits -= 7)) & 127;
  }
  if (bits) septets[at] = (held << (7 - bits)) & 127;
  const codes = [];
  for (let i = 0; i < septets.length; i++) {
    const escape = escaped.indexOf(septets[i]);
    codes.push(escape < 0 ? septets[i] : 1024 + (escape << 7) + (septets[++i] || 0));
  }
  let text = "";
  for (let i = 0; i < codes.length; i += 4096) text += String.fromCharCode(...codes.slice(i, i + 4096));
  return text;
}

async function deflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function replaceElement(source, start, replacement) {
  const from = source.indexOf(start);
  if (from < 0) return null;
  const to = source.indexOf("</script>", from) + "</script>".length;
  return source.slice(0, from) + replacement + source.slice(to);
}

const blockStart = (id) => `<script type="text/plain" id="${id}"`;
const blockOf = (id, bytes) => `${blockStart(id)} data-bytes="${bytes.length}">${pack(bytes)}</script>`;

function putBlock(source, id, bytes) {
  const block = bytes ? blockOf(id, bytes) : "";
  return replaceElement(source, blockStart(id), block) ?? source.replace(blockStart("model"), () => `${block}\n${blockStart("model")}`);
}

// The number of kept classes, names and photo counts as JSON; a line end; the codes of all photos.
async function lessonBytes() {
  const head = new TextEncoder().encode(`${JSON.stringify([kept(), lesson.map(({ name, photos }) => ({ name, photos: photos.length }))])}\n`);
  const codes = lesson.flatMap(({ photos }) => photos.map((photo) => photo.codes));
  return deflate(new Uint8Array(await new Blob([head, ...codes]).arrayBuffer()));
}

async function restoreLesson(packed) {
  const bytes = await inflate(packed, 1 << 28);
  const end = bytes.indexOf(10), [count, head] = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  let at = end + 1;
  const width = (bytes.length - at) / Math.max(1, head.reduce((sum, { photos }) => sum + photos, 0));
  lesson = head.map(({ name, photos }) => ({
    name,
    photos: Array.from({ length: photos }, () => ({ codes: bytes.slice(at, (at += width)) })),
  }));
  keepable = count;
  $("keep").checked = count > 0;
  setMode(true);
  await learn();
}

async function taughtFile() {
  await learn();
  return ask("file", {});
}

async function saveSqz() {
  try {
    save(await taughtFile(), "taught.sqz", "application/octet-stream");
  } catch (error) {
    complain(`${error.message}.`);
  }
}

async function savePage() {
  try {
    const file = await taughtFile();
    const helper = new Helper();
    const { sum, classes } = await helper.open(0, file).then(async (opened) => ({ ...opened, ...await helper.ask("measure", { runs: 1 }) }));
    helper.end();
    let page = `<!doctype html>\n${squeezenet.source}\n`;
    page = putBlock(page, "model", file);
    page = putBlock(page, "labels", null);
    page = putBlock(page, "taught", await lessonBytes());
    const fp32_bytes = facts.fp32_bytes + 4 * (facts.channels + 1) * (classes - facts.classes);
    const now = { ...facts, file_bytes: file.length, fp32_bytes, classes, check: sum };
    const start = '<script type="application/json" id="facts">';
    const put = (bytes) => {
      const text = JSON.stringify({ ...now, page_bytes: bytes }).replace(/</g, "\\u003c");
      return replaceElement(page, start, `${start}${text}</script>`);
    };
    const encoder = new TextEncoder();
    let bytes = encoder.encode(put(0)).length;
    bytes = encoder.encode(put(bytes)).length; // now with the digits of this number
    save(put(bytes), "taught.html", "text/html");
  } catch (error) {
    complain(`${error.message}.`);
  }
}

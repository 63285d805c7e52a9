// Photos in a worker: the browser decodes them, this file turns them upright, and the engine resizes them.

// Passes the rows of a bitmap to the engine in strips; `read(y, rows)` returns a strip as RGBA.
function feed(bitmap, read) {
  const { width, height } = bitmap;
  const squash = geometry.resize_mode === "squash" ? 1 : 0;
  check(engine.web_image_begin(width, height, geometry.resize_size, squash, geometry.resample === "bicubic" ? 1 : 0), "The photo");
  const step = engine.web_strip_rows();
  for (let y = 0; y < height; y += step) {
    const rows = Math.min(step, height - y);
    const strip = read(y, rows);
    memory(Uint8Array, engine.web_strip(), strip.length).set(strip);
    engine.web_image_rows(rows);
  }
  check(engine.web_image_end(), "The photo");
}

// The same for RGBA rows in the layout of ImageData.
function feedPixels({ width, height, data }) {
  feed({ width, height }, (y, rows) => data.subarray(4 * width * y, 4 * width * (y + rows)));
}

function feedOpaque(bitmap) {
  let context;
  feed(bitmap, (y, rows) => {
    context ||= new OffscreenCanvas(bitmap.width, rows).getContext("2d", { willReadFrequently: true });
    context.globalCompositeOperation = "copy";
    context.drawImage(bitmap, 0, -y);
    return context.getImageData(0, 0, bitmap.width, rows).data;
  });
}

// A 2D canvas multiplies colours by alpha and rounds the result; a texture keeps the colours of the file.
function feedTransparent(bitmap) {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (!gl || Math.max(bitmap.width, bitmap.height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) === gl.FRAMEBUFFER_COMPLETE) {
    feed(bitmap, (y, rows) => {
      const strip = new Uint8Array(4 * bitmap.width * rows);
      gl.readPixels(0, y, bitmap.width, rows, gl.RGBA, gl.UNSIGNED_BYTE, strip);
      return strip;
    });
  }
  gl.getExtension("WEBGL_lose_context")?.loseContext();
}

// Some browsers ignore the orientation in a WebP file, others may not: it is removed from the file and applied here.
async function orientWebp(blob) {
  const bytes = async (from, to) => new Uint8Array(await blob.slice(from, to).arrayBuffer());
  const text = (part) => String.fromCharCode(...part);
  const head = await bytes(0, 21);
  if (text(head.subarray(0, 4)) !== "RIFF" || text(head.subarray(8, 16)) !== "WEBPVP8X" || !(head[20] & 8)) return [blob, 1];
  for (let at = 12, chunks = 0; at + 8 <= blob.size && chunks < 64; chunks++) {
    const start = await bytes(at, at + 8);
    const size = new DataView(start.buffer).getUint32(4, true);
    if (text(start.subarray(0, 4)) === "EXIF") {
      const cleared = new Blob([blob.slice(0, 20), new Uint8Array([head[20] & ~8]), blob.slice(21, at), "JUNK", blob.slice(at + 4)]);
      return [cleared, orientationOf(await bytes(at + 8, at + 8 + Math.min(size, 65536)))];
    }
    at += 8 + size + (size & 1);
  }
  return [blob, 1];
}

function orientationOf(exif) {
  // Some programs write "Exif" and two zeros first.
  const start = exif[0] === 69 ? 6 : 0;
  const data = new DataView(exif.buffer, start);
  try {
    const little = data.getUint16(0) === 0x4949;
    const table = data.getUint32(4, little);
    for (let i = 0; i < data.getUint16(table, little); i++) {
      const at = table + 2 + 12 * i;
      if (data.getUint16(at, little) === 274) return data.getUint16(at + 8, little);
    }
  } catch {
    // An unreadable EXIF block is ignored.
  }
  return 1;
}

function turn(bitmap, orientation) {
  const { width: w, height: h } = bitmap;
  const moves = {
    2: [-1, 0, 0, 1, w, 0], 3: [-1, 0, 0, -1, w, h], 4: [1, 0, 0, -1, 0, h], 5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, h, 0], 7: [0, -1, -1, 0, h, w], 8: [0, -1, 1, 0, 0, w],
  };
  if (!moves[orientation]) return bitmap;
  const canvas = new OffscreenCanvas(orientation > 4 ? h : w, orientation > 4 ? w : h);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.setTransform(...moves[orientation]);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}

const UNCHANGED = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

// Colours as in the file, turned upright, as docs/format.md specifies.
async function decode(image) {
  const [blob, orientation] = await orientWebp(image);
  return turn(await createImageBitmap(blob, UNCHANGED), orientation);
}

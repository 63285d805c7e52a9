// What the peers' pages share. Each gives `prepare()`, with the input size of the network, and `run(input)`, and gets
// `self.peer`. `givenPhoto` is there before the page is: all peers decode it as soon as they can.
"use strict";
const get = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());

// Pixels of a photo: the shorter side becomes `resize`, of which the middle is taken.
function crop(bitmap, { size, resize }) {
  const scale = resize / Math.min(bitmap.width, bitmap.height);
  const [width, height] = [scale * bitmap.width, scale * bitmap.height];
  const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, (size - width) / 2, (size - height) / 2, width, height);
  return context.getImageData(0, 0, size, size).data.filter((_, i) => i % 4 < 3);
}

const largest = (values) => values.indexOf(Math.max(...values));

// The peer that a page is: its first answer, all answers, and times of one photo.
function makePeer(prepare, inputOf, run) {
  let pixels;
  const photo = async (index) => {
    const all = await (pixels ||= get("pixels.bin")), size = all.length / 20;
    return all.subarray(index * size, (index + 1) * size);
  };
  const bitmap = createImageBitmap(givenPhoto);
  const ready = prepare();
  self.peer = {
    first: (async () => {
      const facts = await ready;
      const answer = await run(inputOf(crop(await bitmap, facts)));
      return { top1: largest(Array.from(answer)), ms: performance.now() };
    })(),
    async answers() {
      const answers = [];
      for (let index = 0; index < 20; index++) answers.push(Array.from(await run(inputOf(await photo(index)))));
      return answers;
    },
    async time(runs) {
      const input = inputOf(await photo(1)), times = [];
      for (let k = 0; k < runs; k++) {
        const began = performance.now();
        await run(input);
        times.push(performance.now() - began);
      }
      return times;
    },
  };
}

// Normalised floats; `planar` is CHW, else HWC.
function normalise(pixels, { mean, std }, planar) {
  const count = pixels.length / 3;
  return Float32Array.from({ length: pixels.length }, (_, i) => {
    const [place, c] = planar ? [i % count, Math.floor(i / count)] : [Math.floor(i / 3), i % 3];
    return (pixels[3 * place + c] - mean[c]) / std[c];
  });
}

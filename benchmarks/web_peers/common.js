// What the peers' pages share. Each gives `prepare()` and `run(input)`, and gets `self.peer`.
"use strict";
const get = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());

// The peer that a page is: its first answer, all answers, and times of one photo.
function makePeer(prepare, inputOf, run) {
  const ready = prepare();
  const pixels = (async () => get("pixels.bin"))();
  const photo = async (index) => {
    const all = await pixels, size = all.length / 20;
    return all.subarray(index * size, (index + 1) * size);
  };
  self.peer = {
    async first() {
      await ready;
      await run(inputOf(await photo(0)));
      return performance.now();
    },
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
  peer.answered = peer.first(); // as soon as it can, not when asked
  const { answered } = peer;
  peer.first = () => answered;
}

// Normalised floats; `planar` is CHW, else HWC.
function normalise(pixels, { mean, std }, planar) {
  const count = pixels.length / 3;
  return Float32Array.from({ length: pixels.length }, (_, i) => {
    const [place, c] = planar ? [i % count, Math.floor(i / count)] : [Math.floor(i / 3), i % 3];
    return (pixels[3 * place + c] - mean[c]) / std[c];
  });
}

// The exported page as a peer: JPEG files, decoded and resized; only times are of the network alone, as the others' are. The
// page may not fetch anything, so the photos come with the call.
async (photos) => {
  const blobs = photos.map((text) => new Blob([Uint8Array.from(atob(text), (char) => char.charCodeAt(0))]));
  const started = squeezenet.classify(blobs[0]).then(() => performance.now());
  self.peer = {
    first: () => started,
    async answers() {
      const answers = [];
      for (const blob of blobs) answers.push(Array.from((await squeezenet.classify(blob)).logits));
      return answers;
    },
    time: async (runs) => (await squeezenet.classify(blobs[1], { runs })).ms.runs,
  };
}

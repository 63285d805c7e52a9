// The exported page as a peer, made before the page is read: it may not fetch anything, so `photos` is set from outside.
addEventListener("DOMContentLoaded", () => {
  const first = async () => {
    const { top } = await squeezenet.classify(givenPhoto);
    return { top1: top[0].index, ms: performance.now() };
  };
  self.peer = {
    first: first(),
    async answers() {
      const answers = [];
      for (const blob of photos) answers.push(Array.from((await squeezenet.classify(blob)).logits));
      return answers;
    },
    time: async (runs) => (await squeezenet.classify(photos[1], { runs })).ms.runs,
  };
});

// Not from a Blob: reading one is a call to another process.
async function inflate(bytes, limit = 1 << 20) {
  const source = new ReadableStream({ start(to) { to.enqueue(bytes); to.close(); } });
  const reader = source.pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  let size = 0;
  for (let part; !(part = await reader.read()).done; parts.push(part.value)) {
    if ((size += part.value.length) > limit) throw new Error("The model's metadata are too large.");
  }
  const whole = new Uint8Array(size);
  size = 0;
  for (const part of parts) {
    whole.set(part, size);
    size += part.length;
  }
  return whole;
}

async function inflateText(bytes, limit) {
  return new TextDecoder().decode(await inflate(bytes, limit));
}

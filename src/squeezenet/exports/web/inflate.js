// For the page and its workers.
async function inflate(bytes, limit) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  let size = 0;
  for (let part; !(part = await reader.read()).done; parts.push(part.value)) {
    if ((size += part.value.length) > limit) throw new Error("The model's metadata are too large.");
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

const inflateText = async (bytes, limit) => new TextDecoder().decode(await inflate(bytes, limit));

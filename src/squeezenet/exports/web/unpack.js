// Seven bits per character, see `pack` in exports/web_page.py.
function unpack(text = "", bytes = 1) {
  const out = new Uint8Array(Number(bytes) + 2);
  const escaped = [0, 10, 13, 60];
  let at = 0, held = 0, bits = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 127) {
      held = ((held << 7) | escaped[(code - 1024) >> 7]) & 0x7fff;
      bits += 7;
      if (bits >= 8) out[at++] = held >> (bits -= 8);
    }
    held = ((held << 7) | (code & 127)) & 0x7fff;
    bits += 7;
    if (bits >= 8) out[at++] = held >> (bits -= 8);
  }
  if (at < bytes) throw new Error("This page is damaged: the file is incomplete or was changed.");
  return out.subarray(0, bytes);
}

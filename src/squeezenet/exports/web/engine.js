// Loads the engine, for the page's workers and for Node. `kernels` is "plain", or "pairs" or "dot" of relaxed.wasm; by
// default the fastest that this device supports. All give bit-identical results.
async function loadEngine(code, relaxed, kernels) {
  const instance = async (bytes, imports) => (await WebAssembly.instantiate(bytes, imports)).instance.exports;
  const engine = await instance(code, {});
  if (kernels === "plain" || !WebAssembly.validate(relaxed)) return { engine, kernels: "plain" };
  const { relaxed_pack, relaxed_conv, relaxed_has_dot } = await instance(relaxed, { env: { memory: engine.memory } });
  const table = engine.__indirect_function_table;
  const at = table.grow(2);
  table.set(at, relaxed_pack);
  table.set(at + 1, relaxed_conv);
  const hasDot = kernels ? kernels === "dot" : Boolean(relaxed_has_dot());
  engine.web_use_relaxed(at, at + 1, Number(hasDot));
  return { engine, kernels: hasDot ? "dot" : "pairs" };
}

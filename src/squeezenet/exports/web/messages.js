// The last part of a worker of the page: handles messages.
const greet = () => ({});
self.onmessage = async ({ data: { id, verb, ...rest } }) => {
  try {
    const result = await { greet, open, classify, measure, teach, forget, file }[verb](rest);
    self.postMessage({ id, result }, result.bitmap ? [result.bitmap] : []);
  } catch (error) {
    self.postMessage({ id, error: String((error && error.message) || error) });
  }
};

// Work in the background, so that a page never stops answering while it lasts.

/** In a worker: answers each request with the function of this name. */
export function answer(functions) {
  self.onmessage = async ({ data: { id, name, values } }) => {
    try {
      self.postMessage({ id, result: await functions[name](...values) });
    } catch (error) {
      self.postMessage({ id, error: error.message });
    }
  };
}

/**
 * Starts a worker from its source; `run(name, ...values)` gives a promise of the result. Where workers are not allowed
 * the same functions run on the page itself.
 */
export function background(source, functions) {
  const waiting = new Map();
  let worker = null;
  let count = 0;
  async function here(name, values) {
    await new Promise((resolve) => setTimeout(resolve)); // let the page show that something was asked for
    return functions[name](...values);
  }
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  try {
    worker = new Worker(address);
    worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = waiting.get(id);
      waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    worker.onerror = () => {
      worker = null; // it could not be loaded: what waits for it is done here
      for (const { resolve, name, values } of waiting.values()) resolve(here(name, values));
      waiting.clear();
    };
  } catch {
    worker = null;
  }
  return {
    run(name, ...values) {
      if (worker === null) return here(name, values);
      const id = ++count;
      return new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject, name, values });
        worker.postMessage({ id, name, values });
      });
    },
    stop() {
      worker?.terminate();
      URL.revokeObjectURL(address);
    },
  };
}

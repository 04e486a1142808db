// Runs a layer or a network of network.mjs as a request says, and returns what comes out.

export function answer(network, engine, { layers, batches, gradient, labels, settings }) {
  const mark = engine.mark();
  const held = (values) => {
    const array = engine.take(values.length);
    array.set(values);
    return array;
  };
  const copied = (arrays) => {
    engine.release(mark);
    return arrays.map((array) => Array.from(array));
  };
  const made = layers.map(({ kind, values, ...options }) => {
    const layer = network[kind](engine, options);
    (values ?? []).forEach((array, i) => [layer.weight, layer.bias][i].value.set(array));
    return layer;
  });
  if (labels) {
    const losses = batches.map((x, i) => network.trainingStep(engine, made, held(x), labels[i], settings));
    const values = network.parameters(made).map(({ value }) => value);
    return copied([losses, ...values, network.evaluate(engine, made, held(batches[0]))]);
  }
  const [layer] = made;
  let kept;
  for (const x of batches) kept = network.forward(engine, layer, held(x), true);
  const dx = network.backward(engine, layer, kept, held(gradient), true);
  const gradients = network.parameters(made).map((parameter) => parameter.gradient);
  return copied([kept.y, dx, ...gradients, ...averages(layer), network.evaluate(engine, made, held(batches.at(-1)))]);
}

function averages({ whitening, mean, variance }) {
  if (whitening) return [whitening.mean, whitening.average];
  return mean ? [mean, variance] : [];
}

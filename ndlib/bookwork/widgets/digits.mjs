// The handwritten digits that a page carries, packed as race.py packs them.

export const SIDE = 28; // pixels
const [MEAN, DEVIATION] = [0.1307, 0.3081];

/** The digits of a deflated file: labels, a bit for each pixel that is not 0, and the values of these pixels. */
export async function unpack(packed, count) {
  const inflated = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const values = new Uint8Array(await new Response(inflated).arrayBuffer());
  const images = new Uint8Array(count * SIDE * SIDE);
  let next = count + images.length / 8;
  for (let i = 0; i < images.length; i++) {
    if ((values[count + (i >> 3)] >> (7 - (i & 7))) & 1) images[i] = values[next++];
  }
  return { images, labels: values.slice(0, count) };
}

/** Pixels as a network takes them. */
export function standardised(images) {
  return Float32Array.from(images, (value) => (value / 255 - MEAN) / DEVIATION);
}

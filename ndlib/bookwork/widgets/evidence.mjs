// What the explorer of the published numbers shows, and the only arithmetic in it: differences and their means. A table
// holds one list for each column; a record is its index in them.

// Their places in table.sources.
export const PAPER = 0;
export const SBANDATI = 1;
export const JIANG = 2;
export const OBADAGE = 3;
export const RECOVERED = 4;

/** Do the logs give test accuracies for this data set and number of epochs? */
export function canRecover(table, dataset, epochs) {
  return table.source.some((source, i) => source === RECOVERED && table.dataset[i] === dataset && table.epochs[i] === epochs);
}

/** The records that a choice shows, and those of its sources that it hides because they are no test accuracies. */
export function chosen(table, { dataset, epochs, sources, onlyTest, recovered }) {
  const replaced = recovered && canRecover(table, dataset, epochs);
  const inside = [];
  const hidden = [];
  for (let i = 0; i < table.source.length; i++) {
    if (table.dataset[i] !== dataset || table.epochs[i] !== epochs) continue;
    const source = table.source[i];
    if (source === (replaced ? OBADAGE : RECOVERED)) continue;
    if (!sources.includes(table.sources[source === RECOVERED ? OBADAGE : source])) continue;
    (onlyTest && table.kind[i] !== "test" ? hidden : inside).push(i);
  }
  return { shown: inside, hidden };
}

/** BN and ND of one source and architecture: [{source, architecture, bn, nd, gain}], gain in points. */
export function pairsOf(table, records) {
  const found = new Map();
  for (const i of records) {
    const key = `${table.source[i]} ${table.architecture[i]}`;
    found.set(key, { source: table.source[i], architecture: table.architecture[i], ...found.get(key), [table.method[i].toLowerCase()]: i });
  }
  const complete = [...found.values()].filter(({ bn, nd }) => bn !== undefined && nd !== undefined);
  return complete.map((pair) => ({ ...pair, gain: table.accuracy[pair.nd] - table.accuracy[pair.bn] }));
}

/** For each source in turn: {source, count, ahead, gain}, gain the mean over its architectures. */
export function summary(table, records) {
  const pairs = pairsOf(table, records);
  return [PAPER, SBANDATI, JIANG, OBADAGE, RECOVERED].flatMap((source) => {
    const gains = pairs.filter((pair) => pair.source === source).map(({ gain }) => gain);
    if (gains.length === 0) return [];
    const ahead = gains.filter((gain) => gain > 0).length;
    return [{ source, count: gains.length, ahead, gain: gains.reduce((sum, gain) => sum + gain, 0) / gains.length }];
  });
}

/** Each value of a reproduction beside the paper's: [{index, value, half}] in points; half is null without an interval. */
export function differencesOf(table, records) {
  return records
    .filter((i) => table.source[i] !== PAPER)
    .map((i) => ({ index: i, value: table.accuracy[i] - table.paper[i], half: table.half[i] }));
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};

/** Training times, ND beside BN, where a study gives them: [{source, architecture, bn, nd, ratio}], of medians. */
export function timesOf(table, records) {
  const timed = pairsOf(table, records).filter(({ bn, nd }) => table.seconds[bn].length && table.seconds[nd].length);
  return timed.map((pair) => ({ ...pair, ratio: median(table.seconds[pair.nd]) / median(table.seconds[pair.bn]) }));
}

/** For each source in turn: {source, count, agree}, in how many of the intervals no difference lies. */
export function agreement(table, records) {
  const found = differencesOf(table, records).filter(({ half }) => half !== null);
  return [SBANDATI, JIANG, OBADAGE, RECOVERED].flatMap((source) => {
    const own = found.filter(({ index }) => table.source[index] === source);
    return own.length ? [{ source, count: own.length, agree: own.filter(({ value, half }) => Math.abs(value) <= half).length }] : [];
  });
}

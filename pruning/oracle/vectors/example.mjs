// Pruning scores from scratch in plain JavaScript, checked against the vectors; no packages.
//
//     node example.mjs v1 results          # then: python -m pruning oracle verify results
//
// Reads every vector of the folder v1, scores the ones it can (perceptrons; magnitude, exact, and what needs gradients),
// compares its scores with the expected ones and writes them to results/NAME.json.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [folder, results] = process.argv.slice(2);

// A safetensors file: the length of the header (8 bytes, little-endian), the header as JSON, the numbers.
function readTensors(path) {
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(JSON.parse(bytes.subarray(8, start).toString()))) {
    const [from, to] = data_offsets.map((offset) => bytes.byteOffset + start + offset);
    const data = bytes.buffer.slice(from, to); // a copy, so that it is aligned
    tensors[name] = { shape, data: dtype === "I64" ? Array.from(new BigInt64Array(data), Number) : Array.from(new Float64Array(data)) };
  }
  return tensors;
}

const sigmoid = (a) => 1 / (1 + Math.exp(-a));
const softplus = (a) => Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a)));
const ACTIVATIONS = { // f and f'; the derivative of ReLU at 0 is 0
  Identity: [(a) => a, () => 1],
  Tanh: [Math.tanh, (a) => 1 - Math.tanh(a) ** 2],
  ReLU: [(a) => Math.max(a, 0), (a) => (a > 0 ? 1 : 0)],
  Sigmoid: [sigmoid, (a) => sigmoid(a) * sigmoid(-a)],
  Softplus: [softplus, sigmoid],
  SiLU: [(a) => a * sigmoid(a), (a) => sigmoid(a) * (1 + a * sigmoid(-a))],
};

// Where weight (i, o) of a Linear layer stands: in the layout torch the outputs come first.
const at = (vector, layer, i, o) => (vector.layout === "torch" ? o * layer.inputs + i : i * layer.outputs + o);

// The values before every layer, and at the end the outputs z.
function forward(vector, p, x) {
  const trace = [x];
  vector.layers.forEach((layer, l) => {
    const h = trace[l];
    if (layer.kind !== "Linear") return trace.push(h.map(ACTIVATIONS[layer.kind][0]));
    const z = layer.bias ? [...p[`${l}.bias`]] : new Array(layer.outputs).fill(0);
    for (let i = 0; i < layer.inputs; i++)
      for (let o = 0; o < layer.outputs; o++) z[o] += h[i] * p[`${l}.weight`][at(vector, layer, i, o)];
    trace.push(z);
  });
  return trace;
}

const logSumExp = (z) => { const m = Math.max(...z); return m + Math.log(z.reduce((sum, a) => sum + Math.exp(a - m), 0)); };

// The loss of one example and its gradient in z; y holds one number for each output.
function loss(vector, z, y) {
  const { kind, scale } = vector.loss;
  if (kind === "SquaredError")
    return [scale * z.reduce((sum, a, c) => sum + (a - y[c]) ** 2 / 2, 0), z.map((a, c) => scale * (a - y[c]))];
  if (kind === "BinaryCrossEntropy")
    return [scale * z.reduce((sum, a, c) => sum + softplus(a) - y[c] * a, 0), z.map((a, c) => scale * (sigmoid(a) - y[c]))];
  const normaliser = logSumExp(z);
  return [scale * z.reduce((sum, a, c) => sum + y[c] * (normaliser - a), 0), z.map((a, c) => scale * (Math.exp(a - normaliser) - y[c]))];
}

// The gradient of the loss of one example in every parameter, without l2.
function gradient(vector, p, x, y) {
  const trace = forward(vector, p, x), g = {};
  let delta = loss(vector, trace.at(-1), y)[1];
  for (let l = vector.layers.length - 1; l >= 0; l--) {
    const layer = vector.layers[l], h = trace[l];
    if (layer.kind !== "Linear") { delta = delta.map((d, i) => d * ACTIVATIONS[layer.kind][1](h[i])); continue; }
    const W = p[`${l}.weight`], back = new Array(layer.inputs).fill(0);
    const own = (g[`${l}.weight`] = new Array(W.length).fill(0));
    if (layer.bias) g[`${l}.bias`] = delta;
    for (let i = 0; i < layer.inputs; i++)
      for (let o = 0; o < layer.outputs; o++) {
        own[at(vector, layer, i, o)] = h[i] * delta[o];
        back[i] += W[at(vector, layer, i, o)] * delta[o];
      }
    delta = back;
  }
  return g;
}

function objective(vector, p, examples) { // L(w): the mean over the examples plus (l2/2) |w|^2
  const mean = examples.reduce((sum, [x, y]) => sum + loss(vector, forward(vector, p, x).at(-1), y)[0], 0) / examples.length;
  return mean + (vector.l2 / 2) * Object.values(p).flat().reduce((sum, a) => sum + a * a, 0);
}

// For each parameter, f(weight, mean gradient with l2, mean of the squared gradients of the examples without l2).
function fromGradients(f) {
  return (vector, p, examples) => {
    const each = examples.map(([x, y]) => gradient(vector, p, x, y)), N = each.length;
    return mapped(p, (w, name, j) => {
      const mean = each.reduce((sum, g) => sum + g[name][j], 0) / N + vector.l2 * w;
      return f(w, mean, each.reduce((sum, g) => sum + g[name][j] ** 2, 0) / N);
    });
  };
}

const mapped = (p, f) => Object.fromEntries(Object.entries(p).map(([name, a]) => [name, a.map((w, j) => f(w, name, j))]));

const CRITERIA = {
  magnitude: (vector, p) => mapped(p, Math.abs),
  taylor_signed: fromGradients((w, g) => -g * w),
  taylor: fromGradients((w, g) => Math.abs(g * w)),
  taylor_squared: fromGradients((w, g, squares) => squares * w * w),
  fisher_empirical: fromGradients((w, g, squares) => (squares * w * w) / 2),
  snip(vector, p, examples) {
    const taylor = CRITERIA.taylor(vector, p, examples);
    const total = Object.values(taylor).flat().reduce((sum, a) => sum + a, 0);
    return mapped(taylor, (a) => a / total);
  },
  exact(vector, p, examples) {
    const before = objective(vector, p, examples);
    return mapped(p, (w, name, j) => {
      const removed = { ...p, [name]: p[name].with(j, 0) };
      return objective(vector, removed, examples) - before;
    });
  },
};

const rows = (data, count) => Array.from({ length: count }, (_, n) => data.slice((n * data.length) / count, ((n + 1) * data.length) / count));
const nested = (data, shape) => (shape.length < 2 ? data : rows(data, shape[0]).map((row) => nested(row, shape.slice(1))));

let passed = 0, failed = 0, skipped = 0;
if (results) mkdirSync(results, { recursive: true });
for (const file of readdirSync(folder).filter((name) => name.endsWith(".json") && name !== "schema.json").sort()) {
  const vector = JSON.parse(readFileSync(join(folder, file), "utf8"));
  if (!(vector.criterion in CRITERIA) || !vector.layers.every(({ kind }) => kind === "Linear" || kind in ACTIVATIONS)) { skipped++; continue; }
  const tensors = readTensors(join(folder, file.replace(/json$/, "safetensors")));
  const named = (role) => vector.tensors.filter((tensor) => tensor.role === role).map(({ name }) => name);
  const p = Object.fromEntries(named("parameter").map((name) => [name, tensors[name].data]));
  const N = tensors.x.shape[0], outputs = vector.layers.findLast(({ kind }) => kind === "Linear").outputs;
  const oneHot = (label) => Array.from({ length: outputs }, (_, c) => (c === label ? 1 : 0));
  const y = tensors.y.shape.length === 1 ? tensors.y.data.map(oneHot) : rows(tensors.y.data, N);
  const scores = CRITERIA[vector.criterion](vector, p, rows(tensors.x.data, N).map((x, n) => [x, y[n]]));
  let error = 0, largest = 0;
  for (const name of named("scores")) {
    tensors[name].data.forEach((expected, j) => {
      error = Math.max(error, Math.abs(scores[name.slice("scores.".length)][j] - expected));
      largest = Math.max(largest, Math.abs(expected));
    });
  }
  const passes = error <= vector.tolerance.float64 * (largest || 1);
  passes ? passed++ : failed++;
  console.log(`${passes ? "pass" : "FAIL"} ${vector.name} ${(error / (largest || 1)).toExponential(1)}`);
  if (results) {
    const lists = Object.fromEntries(named("parameter").map((name) => [name, nested(scores[name], tensors[name].shape)]));
    writeFileSync(join(results, file), JSON.stringify(lists));
  }
}
console.log(`${passed} passed, ${failed} failed, ${skipped} of other kinds skipped`);
process.exitCode = failed ? 1 : 0;

// Pruning scores from scratch in plain JavaScript, checked against the vectors; no packages.
//
//     node example.mjs v1 results          # then: python -m pruning oracle verify results
//
// Reads every vector of the folder v1, scores the ones it can (perceptrons; magnitude, exact, and what needs first
// derivatives), compares its scores with the expected ones and writes them to results/NAME.json.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [folder, results] = process.argv.slice(2);

// A safetensors file: the length of the header (8 bytes, little-endian), the header as JSON, the numbers.
function readTensors(path) {
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const tensors = {};
  const header = JSON.parse(bytes.subarray(8, start).toString());
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    const [from, to] = data_offsets.map((offset) => bytes.byteOffset + start + offset);
    const data = bytes.buffer.slice(from, to); // a copy, so that it is aligned
    const numbers = dtype === "I64" ? Array.from(new BigInt64Array(data), Number) : Array.from(new Float64Array(data));
    tensors[name] = { shape, data: numbers };
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

const sum = (numbers) => numbers.reduce((total, a) => total + a, 0);
const logSumExp = (z) => Math.max(...z) + Math.log(sum(z.map((a) => Math.exp(a - Math.max(...z)))));

// The loss of one example and its gradient in z; y holds one number for each output.
function loss(vector, z, y) {
  const { kind, scale } = vector.loss;
  const whole = logSumExp(z);
  const [value, slope] = { // of output c, whose number is a
    SquaredError: [(a, c) => (a - y[c]) ** 2 / 2, (a, c) => a - y[c]],
    BinaryCrossEntropy: [(a, c) => softplus(a) - y[c] * a, (a, c) => sigmoid(a) - y[c]],
    SoftmaxCrossEntropy: [(a, c) => y[c] * (whole - a), (a, c) => Math.exp(a - whole) - y[c]],
  }[kind];
  return [scale * sum(z.map(value)), z.map((a, c) => scale * slope(a, c))];
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
  const losses = examples.map(([x, y]) => loss(vector, forward(vector, p, x).at(-1), y)[0]);
  return sum(losses) / examples.length + (vector.l2 / 2) * sum(Object.values(p).flat().map((a) => a * a));
}

// For each parameter, f(weight, mean gradient with l2, mean of the squared gradients of the examples without l2).
function fromGradients(f) {
  return (vector, p, examples) => {
    const each = examples.map(([x, y]) => gradient(vector, p, x, y)), N = each.length;
    return mapped(p, (w, name, j) => {
      const own = each.map((g) => g[name][j]);
      return f(w, sum(own) / N + vector.l2 * w, sum(own.map((a) => a * a)) / N);
    });
  };
}

function mapped(p, f) { // f(number, name of its tensor, place in it) of every number
  return Object.fromEntries(Object.entries(p).map(([name, a]) => [name, a.map((w, j) => f(w, name, j))]));
}

const CRITERIA = {
  magnitude: (vector, p) => mapped(p, Math.abs),
  taylor_signed: fromGradients((w, g) => -g * w),
  taylor: fromGradients((w, g) => Math.abs(g * w)),
  taylor_squared: fromGradients((w, g, squares) => squares * w * w),
  fisher_empirical: fromGradients((w, g, squares) => (squares * w * w) / 2),
  snip(vector, p, examples) {
    const taylor = CRITERIA.taylor(vector, p, examples);
    const total = sum(Object.values(taylor).flat());
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

function rows(data, count) {
  const each = data.length / count;
  return Array.from({ length: count }, (_, n) => data.slice(n * each, (n + 1) * each));
}

function nested(data, shape) {
  return shape.length < 2 ? data : rows(data, shape[0]).map((row) => nested(row, shape.slice(1)));
}

let passed = 0, failed = 0, skipped = 0;
if (results) mkdirSync(results, { recursive: true });
for (const file of readdirSync(folder).filter((name) => name.endsWith(".json") && name !== "schema.json").sort()) {
  const vector = JSON.parse(readFileSync(join(folder, file), "utf8"));
  const known = vector.layers.every(({ kind }) => kind === "Linear" || kind in ACTIVATIONS);
  if (!known || !(vector.criterion in CRITERIA)) { skipped++; continue; }
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
    const lists = named("parameter").map((name) => [name, nested(scores[name], tensors[name].shape)]);
    writeFileSync(join(results, file), JSON.stringify(Object.fromEntries(lists)));
  }
}
console.log(`${passed} passed, ${failed} failed, ${skipped} of other kinds skipped`);
process.exitCode = failed ? 1 : 0;

// What the page holds, what is chosen, and the curves of it.
const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const MODELS = Object.keys(DATA.layers);

const state = {
  ticked: new Set(DATA.chosen),
  words: "",
  facets: {}, // by facet, the JSON of the value that runs must have
  sort: { column: -1, down: false }, // -1 is the name
  x: "epoch",
  colour: "λ",
  marks: "dynamics",
  epochs: [], // of the slider
  epoch: null, // null is the last
};

function runCount() {
  return `${RUNS.length} ${RUNS.length === 1 ? "run" : "runs"}`;
}

function byId(id) {
  return document.getElementById(id);
}

// An element with attributes and children; text is never markup.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function fillSelect(select, options) {
  select.replaceChildren(...options.map(([value, text]) => {
    const option = element("option", {}, text);
    option.value = value;
    return option;
  }));
}

// Plotly reads a little markup in its texts: none of it is meant.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function formatted(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (value === 0 || (Number.isInteger(value) && size < 1e7)) return String(value);
  return size < 1e-3 || size >= 1e5 ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(4)));
}

// Numbers by size, then words, then what is missing.
function compare(a, b) {
  const kind = (v) => (v === null || v === undefined ? 2 : typeof v === "number" ? 0 : 1);
  if (kind(a) !== kind(b)) return kind(a) - kind(b);
  if (kind(a) === 0) return a - b;
  return kind(a) === 2 ? 0 : String(a).localeCompare(String(b), "en", { numeric: true });
}

function matches(run) {
  for (const [facet, wanted] of Object.entries(state.facets)) {
    if (wanted !== "" && JSON.stringify(run.facets[facet]) !== wanted) return false;
  }
  const text = [run.name, run.id, ...run.cells.map(formatted)].join(" ").toLowerCase();
  return state.words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

// The runs that charts show: ticked, and not filtered away.
function shownRuns() {
  return RUNS.filter((run, place) => state.ticked.has(place) && matches(run));
}

// A key over the chosen x axis, or null where the run has none.
function curve(run, key) {
  const group = run.series.find((candidate) => key in candidate.y);
  if (!group || !group.x[state.x]) return null;
  return { x: group.x[state.x], y: group.y[key] };
}

// The newest histogram that is no younger than an epoch; the first where all are.
function histogramAt(run, key, epoch) {
  const found = run.histograms[key];
  if (!found) return null;
  let at = found[0];
  for (const one of found) if (one[0] <= epoch) at = one;
  const [when, edges, bins, first, counts] = at;
  return { epoch: when, counts, edges: edgesOf(edges, bins, first, counts.length) };
}

function edgesOf(edges, bins, first, count) {
  const wide = edges.length === 2;
  const edge = (k) => (wide ? edges[0] + ((edges[1] - edges[0]) * k) / bins : edges[k]);
  return Array.from({ length: count + 1 }, (_, k) => edge(first + k));
}

// Above each edge of a spectrum's filled bins as many values as there are; from the largest on.
function inOrder({ counts, edges }) {
  const above = [0];
  for (const count of [...counts].reverse()) above.push(above[above.length - 1] + count);
  return { x: above, y: [...edges].reverse().map((edge) => 10 ** edge) };
}

function meanOf({ counts, edges }) {
  const all = counts.reduce((a, b) => a + b, 0);
  return counts.reduce((sum, c, k) => sum + (c * (edges[k] + edges[k + 1])) / 2, 0) / all;
}

// From the lowest to the highest filled bin of some runs at any epoch.
function extentOf(runs, keyOf) {
  const ends = [];
  for (const run of runs) {
    for (const [, edges, bins, first, counts] of run.histograms[keyOf(run)] || []) {
      const all = edgesOf(edges, bins, first, counts.length);
      ends.push(all[0], all[all.length - 1]);
    }
  }
  return ends.length ? [ends.reduce((a, b) => Math.min(a, b)), ends.reduce((a, b) => Math.max(a, b))] : null;
}

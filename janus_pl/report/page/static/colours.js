// One colour for each lambda (or B, or seed) and one mark for each of the dynamics (or lambda, ...),
// the same in every chart and whatever is filtered.

// Plasma: its lightness rises evenly, so that it also reads in grey and to the colour-blind.
const PLASMA = [
  [13, 8, 135], [70, 3, 159], [114, 1, 168], [156, 23, 158], [189, 55, 134],
  [216, 87, 107], [237, 121, 83], [251, 159, 58], [253, 202, 38], [240, 249, 33],
];
// The part of it that stands out from the paper.
const PART = { light: [0, 0.66], dark: [0.4, 1] };
const NONE = { light: "#6b7280", dark: "#9aa3ad" };

const DOMAINS = Object.fromEntries(["λ", "B", "seed"].map((facet) => {
  const values = new Map(RUNS.map((run) => [JSON.stringify(run.facets[facet]), run.facets[facet]]));
  return [facet, [...values.values()].filter((value) => value !== null).sort(compare)];
}));
const MARKED = { ...DOMAINS, dynamics: DATA.dynamics };

// Plotly's symbols as the legend writes them; circles are those of closed forms.
const MARKS = [
  null, ["square-open", "□"], ["diamond-open", "◇"], ["triangle-up-open", "△"], ["triangle-down-open", "▽"],
  ["star-open", "☆"], ["square", "■"], ["diamond", "◆"], ["triangle-up", "▲"], ["triangle-down", "▼"], ["star", "★"],
];

function themeNow() {
  return document.documentElement.dataset.theme;
}

function colour(value, alpha = 1) {
  const place = DOMAINS[state.colour].indexOf(value);
  if (place < 0) return NONE[themeNow()];
  const [low, high] = PART[themeNow()];
  const share = DOMAINS[state.colour].length > 1 ? place / (DOMAINS[state.colour].length - 1) : 0.3;
  const at = (low + (high - low) * share) * (PLASMA.length - 1);
  const k = Math.min(Math.floor(at), PLASMA.length - 2);
  const mixed = PLASMA[k].map((from, c) => Math.round(from + (PLASMA[k + 1][c] - from) * (at - k)));
  return `rgba(${mixed.join(",")},${alpha})`;
}

function colourOf(run, alpha = 1) {
  return colour(run.facets[state.colour], alpha);
}

// The first of several values has no mark, nor has what has no value.
function mark(value) {
  return MARKS[Math.max(0, MARKED[state.marks].indexOf(value)) % MARKS.length];
}

function markOf(run) {
  return mark(run.facets[state.marks]);
}

// Whole-set dynamics are dashed.
function dashOf(run) {
  return run.whole ? "dash" : "solid";
}

// A short line as charts draw it, with its mark.
function swatch(stroke, dashed, marked) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "path");
  for (const [key, value] of Object.entries({ width: 40, height: 16, "aria-hidden": true })) svg.setAttribute(key, value);
  const drawn = { d: marked ? "M1 8H13M27 8H39" : "M1 8H39", stroke, "stroke-width": 3 };
  if (dashed) drawn["stroke-dasharray"] = marked ? "5 2" : "6 4";
  for (const [key, value] of Object.entries(drawn)) line.setAttribute(key, value);
  svg.append(line);
  if (marked) {
    const text = document.createElementNS(space, "text");
    for (const [key, value] of Object.entries({ x: 20, y: 8, "dominant-baseline": "central", "text-anchor": "middle", "font-size": 14, fill: stroke })) text.setAttribute(key, value);
    text.textContent = marked[1];
    svg.append(text);
  }
  return svg;
}

// Colours, then dynamics by their dash, then marks of something else.
function drawLegend() {
  const shown = shownRuns();
  const ink = paint("--ink");
  const key = (line, text) => element("span", { class: "key" }, line, text);
  const among = (facet, values) => values.filter((v) => shown.some((run) => run.facets[facet] === v));
  const values = among(state.colour, DOMAINS[state.colour]);
  const own = (facet, value) => (state.marks === facet ? mark(value) : null);
  const items = values.map((v) => key(swatch(colour(v), false, own(state.colour, v)), `${state.colour} = ${formatted(v)}`));
  if (shown.some((run) => !values.includes(run.facets[state.colour]))) items.push(key(swatch(NONE[themeNow()], false), `no ${state.colour}`));
  for (const dynamics of among("dynamics", DATA.dynamics)) {
    const { whole } = shown.find((run) => run.facets.dynamics === dynamics);
    items.push(key(swatch(ink, whole, own("dynamics", dynamics)), dynamics));
  }
  const told = ["dynamics", state.colour].includes(state.marks) ? [] : among(state.marks, MARKED[state.marks]);
  if (told.length > 1) items.push(...told.map((v) => key(swatch(ink, false, mark(v)), `${state.marks} = ${formatted(v)}`)));
  byId("legend").replaceChildren(...items);
}

// One colour for each lambda (or B, or seed), the same in every chart and whatever is filtered.

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

// Whole-set dynamics are dashed.
function dashOf(run) {
  return run.whole ? "dash" : "solid";
}

// A short line as charts draw it.
function swatch(stroke, dashed) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "line");
  for (const [key, value] of Object.entries({ width: 28, height: 10, "aria-hidden": true })) svg.setAttribute(key, value);
  const drawn = { x1: 1, x2: 27, y1: 5, y2: 5, stroke, "stroke-width": 3 };
  if (dashed) drawn["stroke-dasharray"] = "6 4";
  for (const [key, value] of Object.entries(drawn)) line.setAttribute(key, value);
  svg.append(line);
  return svg;
}

function drawLegend() {
  const shown = shownRuns();
  const key = (mark, text) => {
    const item = element("span", { class: "key" }, mark, text);
    return item;
  };
  const values = DOMAINS[state.colour].filter((v) => shown.some((run) => run.facets[state.colour] === v));
  const items = values.map((value) => key(swatch(colour(value), false), `${state.colour} = ${formatted(value)}`));
  if (shown.some((run) => !values.includes(run.facets[state.colour]))) items.push(key(swatch(NONE[themeNow()], false), `no ${state.colour}`));
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink");
  for (const dynamics of DATA.dynamics) {
    const own = shown.find((run) => run.facets.dynamics === dynamics);
    if (own) items.push(key(swatch(ink, own.whole), dynamics));
  }
  byId("legend").replaceChildren(...items);
}

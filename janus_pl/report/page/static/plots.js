// Charts: one figure for each panel, drawn again in place.

function paint(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(title, more) {
  return {
    title: { text: plain(title), standoff: 8 },
    automargin: true,
    exponentformat: "e",
    ...(more.type === "log" ? { tickformat: "~g" } : {}), // else 2 and 5 stand for 0.02 and 0.05
    gridcolor: paint("--grid"),
    linecolor: paint("--line"),
    zerolinecolor: paint("--line"),
    ...more,
  };
}

function layout(x, y) {
  return {
    autosize: true,
    showlegend: false,
    hovermode: "closest",
    margin: { l: 12, r: 12, t: 10, b: 8 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: paint("--soft"), activecolor: paint("--ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: paint("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: paint("--paper"), font: { color: paint("--ink") }, namelength: -1 },
    // So few that a log axis never writes all nine numbers of a decade side by side.
    xaxis: x.type === "log" ? { ...x, nticks: 3 } : x,
    yaxis: y.type === "log" ? { ...y, nticks: y.range && y.range[1] - y.range[0] < 2 ? 3 : 6 } : y,
  };
}

const CONFIG = {
  responsive: true,
  displaylogo: false,
  // Of Plotly's own some would send the data to a server.
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
};

// Panels of a section: [{title, traces, x, y}]; those of before that are gone are removed.
function drawPanels(place, panels) {
  const old = new Map([...place.children].map((figure) => [figure.dataset.title, figure]));
  const figures = panels.map((panel) => {
    const figure = old.get(panel.title) || element("figure", {}, element("figcaption", {}, panel.title), element("div", { class: "plot", role: "img" }));
    figure.dataset.title = panel.title;
    old.delete(panel.title);
    return figure;
  });
  for (const figure of old.values()) Plotly.purge(figure.lastChild);
  if (figures.some((figure, k) => place.children[k] !== figure) || old.size) place.replaceChildren(...figures);
  place.classList.remove("waiting");
  panels.forEach((panel, k) => {
    const node = figures[k].lastChild;
    node.setAttribute("aria-label", `Chart: ${panel.title}, ${panel.y.title.text} over ${panel.x.title.text}, ${panel.traces.length} curves`);
    Plotly.react(node, panel.traces.map((trace) => drawable(trace, panel)), layout(panel.x, panel.y), CONFIG);
  });
}

// Zero and less would be drawn as a fall to the bottom of a log axis.
function drawable(trace, { x, y }) {
  const kept = (list, scale) => (scale === "log" ? list.map((v) => (v > 0 ? v : null)) : list);
  return { ...trace, x: kept(trace.x, x.type), y: kept(trace.y, y.type) };
}

function lineTrace(run, points, more = {}) {
  const marked = markOf(run);
  return {
    type: "scatter",
    mode: points.x.length < 2 ? "markers" : marked ? "lines+markers" : "lines",
    name: plain(run.name),
    x: points.x,
    y: points.y,
    line: { color: colourOf(run), dash: dashOf(run), width: 1.8 },
    marker: { color: colourOf(run), size: 7, symbol: marked ? marked[0] : "circle", maxdisplayed: 8 },
    hovertemplate: "%{fullData.name}<br>x %{x}<br>y %{y}<extra></extra>",
    ...more,
  };
}

// A histogram as an outline: up at its first edge, down at its last.
function stepTrace(run, edges, heights, when) {
  return lineTrace(run, { x: [edges[0], ...edges], y: [0, ...heights, 0] }, {
    line: { color: colourOf(run), dash: dashOf(run), width: 1.6, shape: "hv" },
    fill: "tozeroy",
    fillcolor: colourOf(run, 0.12),
    hovertemplate: `%{fullData.name}<br>epoch ${Number(when)}<br>from %{x}<br>%{y}<extra></extra>`,
  });
}

const X_TITLES = { epoch: "epoch", step: "step", eta: "accumulated ηt" };

function timeAxis() {
  return axis(X_TITLES[state.x], { type: byId("x-scale").value, exponentformat: "none", separatethousands: true });
}

// The same range for several panels, a little wider than the numbers; null leaves it to Plotly.
function commonRange(numbers, scale) {
  const usable = scale === "log" ? numbers.filter((v) => v > 0).map(Math.log10) : numbers.filter(Number.isFinite);
  if (!usable.length) return null;
  const low = usable.reduce((a, b) => Math.min(a, b));
  const high = usable.reduce((a, b) => Math.max(a, b));
  const more = (high - low) * 0.04 || Math.abs(high) * 0.05 || 1;
  return [low - more, high + more];
}

// Groups of runs that share panels: by model, minibatches before the whole set.
function sides(runs) {
  const found = [];
  for (const model of MODELS) {
    for (const dynamics of DATA.dynamics) {
      const own = runs.filter((run) => run.model === model && run.facets.dynamics === dynamics);
      if (own.length) found.push({ model, runs: own, title: MODELS.length > 1 ? `${dynamics} · ${model}` : dynamics });
    }
  }
  return found;
}

// What is not drawn, said in one line.
function note(section, text, which = 0) {
  byId(section).querySelectorAll(".note")[which].textContent = text;
}

function whyNone(runs, what) {
  if (!RUNS.length) return "There is no run.";
  return runs.length ? `Not drawn: ${what}` : "Not drawn: no run in the table is ticked.";
}

function hiddenByLog(traces) {
  const lost = traces.some((trace) => trace.y.some((v) => v !== null && v <= 0));
  return lost ? "Values of zero or less have no place on the log axis." : "";
}

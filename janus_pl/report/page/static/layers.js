// Charts of margins and of layers.

function epochNow() {
  const at = state.epoch === null ? state.epochs.length - 1 : state.epochs.findLastIndex((epoch) => epoch <= state.epoch);
  return state.epochs[Math.max(0, at)];
}

// The slider goes over the epochs at which a shown run has a histogram.
function fillSlider() {
  const found = new Set();
  for (const run of shownRuns()) {
    for (const list of Object.values(run.histograms)) for (const [epoch] of list) found.add(epoch);
  }
  state.epochs = [...found].sort((a, b) => a - b);
  showEpoch();
}

// At its end each run is at its own last epoch, which need not be that of the others.
function atTheEnd() {
  return state.epoch === null || state.epoch >= state.epochs[state.epochs.length - 1];
}

function epochText() {
  if (!state.epochs.length) return "no epochs";
  const last = new Set(shownRuns().flatMap((run) => Object.values(run.histograms).map((list) => list[list.length - 1][0])));
  return atTheEnd() && last.size > 1 ? "the last of each run" : `epoch ${epochNow()}`;
}

function showEpoch() {
  const last = Math.max(0, state.epochs.length - 1);
  const place = Math.max(0, state.epochs.indexOf(epochNow()));
  const text = epochText();
  for (const slider of document.querySelectorAll("input.epoch")) {
    slider.max = last;
    slider.value = place;
    slider.disabled = last === 0;
    slider.setAttribute("aria-valuetext", text);
  }
  for (const label of document.querySelectorAll(".epoch-label")) label.textContent = text;
}

function drawMargins() {
  const runs = shownRuns();
  const relative = byId("margin-scale").value === "relative";
  const scale = byId("margin-scale").value === "log" ? "log" : "linear";
  const recorded = runs.filter((run) => run.histograms[run.margins.key]);
  // Margins in different units never share a panel.
  const units = [...new Set(recorded.map((run) => run.margins.axis))];
  const groups = units.flatMap((unit) => sides(recorded.filter((run) => run.margins.axis === unit))
    .map((side) => ({ ...side, unit, title: units.length > 1 ? `${side.title} · ${unit}` : side.title })));
  const late = new Set();
  const panels = groups.map(({ title, model, unit, runs: own }) => {
    const traces = own.map((run) => {
      const at = histogramAt(run, run.margins.key, epochNow());
      if (at.epoch !== epochNow() && !atTheEnd()) late.add(run);
      const all = at.counts.reduce((a, b) => a + b, 0) || 1;
      const mean = meanOf(at);
      const edges = relative ? at.edges.map((edge) => (edge - mean) / Math.abs(mean)) : at.edges;
      return stepTrace(run, edges, at.counts.map((c) => c / all), at.epoch);
    });
    return { title, model, unit, traces };
  });
  const alike = (one, other) => one.model === other.model && one.unit === other.unit;
  for (const panel of panels) {
    const same = panels.filter((other) => alike(panel, other));
    const held = extentOf(groups.filter((group) => alike(panel, group)).flatMap((group) => group.runs), (run) => run.margins.key);
    const numbers = byId("hold").checked && !relative ? held : same.flatMap((other) => other.traces.flatMap((t) => t.x));
    panel.x = axis(relative ? "(margin − mean)/mean" : panel.unit, { type: scale, range: commonRange(numbers, scale) });
    panel.y = axis("share of samples in a bin", { rangemode: "tozero" });
  }
  const lost = scale === "log" && panels.some((p) => p.traces.some((t) => t.x.some((v) => v <= 0)));
  const notes = [
    panels.length ? "" : whyNone(runs, "no ticked run recorded margin/hist or margin_raw/hist."),
    late.size ? `${late.size} of them have no histogram at this epoch and are shown at the one before it; pointing at a curve tells which.` : "",
    lost ? "Margins of zero or less have no place on the log axis." : "",
  ];
  note("margins", notes.filter(Boolean).join(" "));
  drawPanels(byId("margins").querySelector(".panels"), panels);
}

// A panel for each layer that a run has; `traces` makes what it shows of one run, or null.
function layerPanels(runs, traces) {
  const panels = [];
  for (const model of MODELS) {
    const own = runs.filter((run) => run.model === model);
    for (const layer of DATA.layers[model]) {
      const found = own.map((run) => traces(run, layer)).filter(Boolean);
      if (found.length) panels.push({ title: MODELS.length > 1 ? `${layer} · ${model}` : layer, traces: found, runs: own, layer });
    }
  }
  return panels;
}

function drawOverTime(section, kind, title, scale) {
  const runs = shownRuns();
  const panels = layerPanels(runs, (run, layer) => {
    const points = curve(run, `${kind}/${layer}`);
    return points && lineTrace(run, points);
  });
  for (const panel of panels) {
    panel.x = timeAxis();
    panel.y = axis(title, { type: scale, rangemode: scale === "linear" ? "tozero" : "normal" });
  }
  const lost = scale === "log" ? hiddenByLog(panels.flatMap((panel) => panel.traces)) : "";
  note(section, panels.length ? lost : whyNone(runs, `no ticked run recorded ${kind || section} over ${X_TITLES[state.x]}.`));
  drawPanels(byId(section).querySelector(".panels"), panels);
}

function drawVelocities() {
  drawOverTime("velocities", byId("velocity-kind").value, "‖V̇‖", byId("velocity-scale").value);
}

function drawRanks() {
  drawOverTime("ranks", byId("rank-kind").value, "rank", byId("rank-scale").value);
}

function drawSpectra() {
  const runs = shownRuns();
  const ordered = byId("spectra-view").value === "order";
  const panels = layerPanels(runs, (run, layer) => {
    const at = histogramAt(run, `spectrum/${layer}`, epochNow());
    if (!at) return null;
    if (!ordered) return stepTrace(run, at.edges.map((edge) => 10 ** edge), at.counts, at.epoch);
    const hovertemplate = `%{fullData.name}<br>epoch ${Number(at.epoch)}<br>%{x} values of at least %{y}<extra></extra>`;
    return lineTrace(run, inOrder(at), { hovertemplate });
  });
  for (const panel of panels) {
    const held = extentOf(panel.runs, () => `spectrum/${panel.layer}`);
    const sigma = axis("singular value σ", { type: "log", range: commonRange(held.map((edge) => 10 ** edge), "log") });
    panel.x = ordered ? axis("values of at least σ", { rangemode: "tozero" }) : sigma;
    panel.y = ordered ? sigma : axis("singular values in a bin", { rangemode: "tozero" });
  }
  note("spectra", panels.length ? "" : whyNone(runs, "no ticked run recorded spectrum/LAYER."));
  drawPanels(byId("spectra").querySelector(".panels"), panels);
}

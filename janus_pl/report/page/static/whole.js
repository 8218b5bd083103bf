// Charts of whole runs: one quantity by dynamics, and linear regression.

function drawQuantity() {
  const runs = shownRuns();
  const key = byId("quantity").value;
  const scale = byId("quantity-scale").value;
  const panels = sidePanels(runs, (run) => {
    const points = curve(run, key);
    return points ? [lineTrace(run, points)] : [];
  }, key, scale);
  const lost = scale === "log" ? hiddenByLog(panels.flatMap((panel) => panel.traces)) : "";
  note("quantities", panels.length ? lost : whyNone(runs, key ? `no ticked run recorded ${key} over ${X_TITLES[state.x]}.` : "no run recorded a number."));
  drawPanels(byId("quantities").querySelector(".panels"), panels);
}

// Dynamics side by side with the same axes: over steps those on the whole set have far fewer.
function sidePanels(runs, tracesOf, title, scale, prefix = "") {
  const panels = sides(runs)
    .map((side) => ({ ...side, title: prefix + side.title, traces: side.runs.flatMap(tracesOf) }))
    .filter((panel) => panel.traces.length);
  for (const panel of panels) {
    const same = panels.filter((other) => other.model === panel.model).flatMap((other) => other.traces);
    const time = timeAxis();
    panel.x = { ...time, range: commonRange(same.flatMap((trace) => trace.x), time.type) };
    panel.y = axis(title, { type: scale, range: commonRange(same.flatMap((trace) => trace.y), scale) });
  }
  return panels;
}

function nullTraces(run) {
  const measured = curve(run, "null/norm");
  const predicted = curve(run, "null/predicted");
  const traces = measured ? [lineTrace(run, measured)] : [];
  if (!predicted) return traces;
  // Few enough circles to see the line below them.
  const every = Math.ceil(predicted.x.length / 25);
  const some = (list) => list.filter((_, k) => k % every === 0 || k === list.length - 1);
  const circles = { mode: "markers", marker: { color: colourOf(run), symbol: "circle-open", size: 8 }, hovertemplate: "%{fullData.name}, closed form<br>x %{x}<br>y %{y}<extra></extra>" };
  return [...traces, lineTrace(run, { x: some(predicted.x), y: some(predicted.y) }, circles)];
}

function drawLinear() {
  const runs = shownRuns();
  const scale = byId("linear-scale").value;
  const sigma = (run) => {
    const points = curve(run, "sigma_min");
    return points ? [lineTrace(run, points)] : [];
  };
  const panels = [
    ...sidePanels(runs, nullTraces, "‖W(I - π)‖", scale, "null space · "),
    ...sidePanels(runs, sigma, "σ min", scale, "smallest singular value · "),
  ];
  const lost = scale === "log" ? hiddenByLog(panels.flatMap((panel) => panel.traces)) : "";
  note("linear", panels.length ? lost : whyNone(runs, "no ticked run recorded null/norm, null/predicted or sigma_min."));
  const [first, second] = byId("linear").querySelectorAll(".panels");
  drawPanels(first, panels);
  const values = valuePanels(runs, scale);
  note("linear", values.length ? "" : whyNone(runs, "no ticked run recorded singular_value/K."), 1);
  drawPanels(second, values);
}

// All singular values of one run in a panel.
function valuePanels(runs, scale) {
  return runs.map((run) => {
    const keys = run.series.flatMap((group) => Object.keys(group.y)).filter((key) => key.startsWith("singular_value/")).sort();
    const traces = keys.map((key) => [key, curve(run, key)]).filter(([, points]) => points).map(([key, points]) =>
      lineTrace(run, points, { name: plain(key), line: { color: colourOf(run), dash: dashOf(run), width: 1.2 } }));
    return { title: `${run.name} (${run.id})`, traces, x: timeAxis(), y: axis("σ", { type: scale }) };
  }).filter((panel) => panel.traces.length);
}

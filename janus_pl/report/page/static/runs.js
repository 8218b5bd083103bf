// The table of runs with its filters, and the table of predictions.

function heading(label, title, column, numeric) {
  const sorted = state.sort.column === column;
  const arrow = sorted ? (state.sort.down ? " ▼" : " ▲") : "";
  const button = element("button", { type: "button", title }, label + arrow);
  button.addEventListener("click", () => {
    state.sort = { column, down: state.sort.column === column && !state.sort.down };
    drawTable();
    byId("run-table").querySelectorAll("thead button")[column + 1].focus();
  });
  return element("th", { scope: "col", class: numeric ? "number" : "", "aria-sort": sorted ? (state.sort.down ? "descending" : "ascending") : "none" }, button);
}

function isNumeric(column) {
  return RUNS.some((run) => typeof run.cells[column] === "number");
}

function drawTable() {
  const head = byId("run-table").querySelector("thead tr");
  head.replaceChildren(
    element("th", { scope: "col" }, "show"),
    element("th", { scope: "col" }, "line"),
    heading("name", "name of the run", -1, false),
    ...DATA.columns.map((column, k) => heading(column.label, column.title, k, isNumeric(k))),
  );
  const { column, down } = state.sort;
  const value = (run) => (column < 0 ? run.name : run.cells[column]);
  const missing = (run) => value(run) === null;
  const order = RUNS.map((run, place) => place).filter((place) => matches(RUNS[place]));
  order.sort((a, b) => {
    if (missing(RUNS[a]) || missing(RUNS[b])) return missing(RUNS[a]) - missing(RUNS[b]) || a - b;
    return compare(value(RUNS[a]), value(RUNS[b])) * (down ? -1 : 1) || a - b;
  });
  byId("run-table").querySelector("tbody").replaceChildren(...order.map(rowOf));
  drawStatus(order.length);
}

function rowOf(place) {
  const run = RUNS[place];
  const box = element("input", { type: "checkbox", "aria-label": `show ${run.name}` });
  const row = element("tr", {}, element("td", {}, box), element("td", {}, swatch(colourOf(run), run.whole, markOf(run))));
  box.checked = state.ticked.has(place);
  row.classList.toggle("off", !box.checked);
  box.addEventListener("change", () => {
    if (box.checked) state.ticked.add(place);
    else state.ticked.delete(place);
    row.classList.toggle("off", !box.checked);
    drawStatus(byId("run-table").querySelectorAll("tbody tr").length);
    chosenChanged();
  });
  row.append(element("th", { scope: "row", title: run.id }, run.name));
  run.cells.forEach((cell, k) => row.append(element("td", { class: isNumeric(k) ? "number" : "" }, formatted(cell))));
  return row;
}

function drawStatus(matching) {
  byId("status").textContent = `${runCount()}, ${matching} in the table, ${shownRuns().length} ticked and shown.`;
}

function fillFacets() {
  for (const facet of DATA.facets) {
    const values = new Map(RUNS.map((run) => [JSON.stringify(run.facets[facet]), run.facets[facet]]));
    if (values.size < 2) continue;
    const select = element("select", { "data-facet": facet });
    const sorted = [...values].sort((a, b) => compare(a[1], b[1]));
    fillSelect(select, [["", "all"], ...sorted.map(([json, value]) => [json, value === null ? "none" : formatted(value)])]);
    select.addEventListener("change", () => {
      state.facets[facet] = select.value;
      filterChanged();
    });
    byId("facets").append(element("label", {}, facet, select));
  }
}

const OUTCOMES = {
  supported: ["holds", "✓"], holds: ["holds", "✓"],
  contradicted: ["fails", "✗"], broken: ["fails", "✗"],
};

function fillVerdicts() {
  const none = !DATA.verdicts.length;
  byId("verdict-table").parentElement.hidden = none;
  if (none) return note("verdicts", "No verdicts came with these runs; python -m janus_pl verify tells them.");
  const left = DATA.left_out ? ` Left out of the claims: ${DATA.left_out}.` : "";
  const old = DATA.verdicts.some((line) => line.retrospective) ? " Retrospective: the runs are older than the claim." : "";
  const shown = DATA.verdicts.filter((line) => line.primary);
  const others = DATA.verdicts.filter((line) => !line.primary);
  const count = (answer) => `${answer}: ${shown.filter((line) => line.answer === answer).length}`;
  const counts = [...new Set(shown.map((line) => line.answer))].map(count).join(", ");
  note("verdicts", `The paper's claims and theorems, one line each (${counts}). A click shows the settings behind a line.${left}${old}`);
  byId("verdict-table").querySelector("tbody").replaceChildren(...shown.map(verdictRow));
  byId("more-verdicts").hidden = !others.length;
  byId("more-verdicts").querySelector("tbody").replaceChildren(...others.map(verdictRow));
}

function verdictRow(line) {
  const [kind, mark] = OUTCOMES[line.answer] || ["open", "–"];
  const items = [...line.details.map((detail) => element("li", {}, detail)), element("li", {}, `supported if ${line.criterion}`)];
  if (line.runs.length) items.push(element("li", {}, `runs: ${line.runs.join(", ")}`));
  return element("tr", {},
    element("td", { class: kind }, `${mark} ${line.answer}`, line.retrospective ? element("small", {}, "retrospective") : ""),
    element("th", { scope: "row" },
      element("details", {}, element("summary", {}, line.sentence), element("small", {}, `${line.name}, ${line.source}`), element("ul", {}, ...items))));
}

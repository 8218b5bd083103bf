// What is drawn when: a section is drawn once it is near the window, and again when it is stale.

const SECTIONS = {
  margins: drawMargins,
  quantities: drawQuantity,
  velocities: drawVelocities,
  ranks: drawRanks,
  spectra: drawSpectra,
  linear: drawLinear,
};
const stale = new Set(Object.keys(SECTIONS));
const near = new Set();

function redraw(...names) {
  for (const section of names) stale.add(section);
  for (const section of near) {
    if (stale.delete(section)) SECTIONS[section]();
  }
}

function redrawAll() {
  redraw(...Object.keys(SECTIONS));
}

function chosenChanged() {
  fillSlider();
  drawLegend();
  redrawAll();
}

function filterChanged() {
  drawTable();
  chosenChanged();
}

function setTheme(wanted) {
  document.documentElement.dataset.theme = wanted;
  byId("theme").textContent = wanted === "dark" ? "light colours" : "dark colours";
  drawTable();
  drawLegend();
  redrawAll();
}

function onChange(id, act) {
  byId(id).addEventListener("change", act);
}

function listen() {
  byId("filter").addEventListener("input", (event) => {
    state.words = event.target.value;
    filterChanged();
  });
  byId("tick-all").addEventListener("click", () => {
    RUNS.forEach((run, place) => matches(run) && state.ticked.add(place));
    filterChanged();
  });
  byId("tick-none").addEventListener("click", () => {
    state.ticked.clear();
    filterChanged();
  });
  for (const slider of document.querySelectorAll("input.epoch")) {
    slider.addEventListener("input", () => {
      state.epoch = state.epochs[Number(slider.value)];
      showEpoch();
      redraw("margins", "spectra");
    });
  }
  onChange("x", () => {
    state.x = byId("x").value;
    redrawAll();
  });
  onChange("x-scale", redrawAll);
  onChange("colour", () => {
    state.colour = byId("colour").value;
    // What the colour no longer tells, the marks do.
    state.marks = byId("marks").value = state.colour === "λ" ? "dynamics" : "λ";
    filterChanged();
  });
  onChange("marks", () => {
    state.marks = byId("marks").value;
    filterChanged();
  });
  onChange("spectra-view", () => redraw("spectra"));
  for (const id of ["margin-scale", "hold"]) onChange(id, () => redraw("margins"));
  for (const id of ["quantity", "quantity-scale"]) onChange(id, () => redraw("quantities"));
  for (const id of ["velocity-kind", "velocity-scale"]) onChange(id, () => redraw("velocities"));
  for (const id of ["rank-kind", "rank-scale"]) onChange(id, () => redraw("ranks"));
  onChange("linear-scale", () => redraw("linear"));
  const system = matchMedia("(prefers-color-scheme: dark)");
  let asked = false;
  byId("theme").addEventListener("click", () => {
    asked = true;
    setTheme(themeNow() === "dark" ? "light" : "dark");
  });
  system.addEventListener("change", () => asked || setTheme(system.matches ? "dark" : "light"));
  addEventListener("beforeprint", () => {
    Object.keys(SECTIONS).forEach((section) => near.add(section));
    redraw();
  });
  return system.matches ? "dark" : "light";
}

function fillChoices() {
  byId("count").textContent = runCount();
  if (DATA.command) byId("made").replaceChildren("Made by ", element("code", {}, DATA.command));
  const keys = RUNS.flatMap((run) => run.series.flatMap((group) => Object.keys(group.y)));
  const kinds = ["velocity", "velocity_full"].filter((kind) => keys.some((key) => key.startsWith(`${kind}/`)));
  const names = { velocity: "minibatches", velocity_full: "the whole set" };
  fillSelect(byId("velocity-kind"), kinds.map((kind) => [kind, names[kind]]));
  fillSelect(byId("rank-kind"), DATA.ranks.map(({ kind, label }) => [kind, label]));
  fillSelect(byId("quantity"), DATA.quantities.map((key) => [key, key]));
  const first = ["margin/mean", "margin_raw/mean"].find((key) => DATA.quantities.includes(key));
  if (first) byId("quantity").value = first;
}

// Pictures of a scan, which are not drawn here; without one the section stays hidden.
function fillScans() {
  if (!DATA.scans.length) return;
  byId("scans").hidden = false;
  document.querySelector('nav a[href="#scans"]').hidden = false;
  for (const { title, caption, png } of DATA.scans) {
    const image = element("img", { src: `data:image/png;base64,${png}`, alt: title });
    byId("scans").append(element("figure", {}, image, element("figcaption", {}, caption)));
  }
}

fillChoices();
fillFacets();
fillVerdicts();
fillScans();
const firstTheme = listen();
fillSlider();
setTheme(firstTheme);
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) near.add(target.id);
    else near.delete(target.id);
  }
  redraw();
}, { rootMargin: "300px" });
for (const section of Object.keys(SECTIONS)) observer.observe(byId(section));

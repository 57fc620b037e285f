// Puts the page together, and again when the reader chooses, the theme changes or a newer document arrives.
"use strict";

const MOST_BOXES = 12;
const byId = (id) => document.getElementById(id);

function choose(change) {
  Object.assign(view, change);
  drawSections();
}

function drawHeader() {
  document.title = `${run.sweep} ${run.run}`;
  byId("run").replaceChildren(element("b", {}, run.sweep), ` ${run.run} `, ...otherRuns());
  byId("question").textContent = run.question;
  byId("answer").replaceChildren(...run.answer.map((sentence) => element("p", {}, sentence)));
}

// a served page can show any run of the store
function otherRuns() {
  if ((run.runs ?? []).length < 2) return [];
  const go = (event) => location.assign(`?run=${encodeURIComponent(event.target.value)}`);
  return [element("select", { "aria-label": "Run", onchange: go }, ...run.runs.map((one) =>
    element("option", { value: one.run, selected: one.run === run.run }, `${one.sweep} ${one.run}`)))];
}

function drawState(cells) {
  const { planned, recorded, failed } = run.trials;
  const missing = planned - recorded - failed;
  byId("state").textContent = [
    `${cells.length === run.cells.at.length ? "" : `${cells.length.toLocaleString("en")} of `}${plural(run.cells.at.length, "cell")} shown`,
    `${recorded.toLocaleString("en")} of ${plural(planned, "trial")} recorded`,
    failed ? `${failed.toLocaleString("en")} failed` : "none failed",
    missing > 0 ? `${missing.toLocaleString("en")} still to run` : null,
  ].filter(Boolean).join(" · ");
}

function drawFilters() {
  const { along, series } = layoutAxes();
  const names = varying();
  const axisChoice = (id, words, chosen, options, change) => element("label", {}, `${words} `,
    element("select", { id, onchange: (event) => change(event.target.value) }, ...options.map(([value, text]) =>
      element("option", { value, selected: value === (chosen ?? "") }, text))));
  const choices = names.length > 1 ? [
    axisChoice("along", "Along", along, names.map((name) => [name, name]), (value) => { view.along = value; drawAll(); }),
    axisChoice("series", "Colours", series, [["", "none"], ...names.filter((name) => name !== along && name !== "pool.recycle").map((name) => [name, name])],
      (value) => { view.series = value; drawAll(); }),
  ] : [];
  const theme = element("button", { type: "button", id: "theme", onclick: switchTheme }, isDark() ? "Light" : "Dark");
  const hidden = [...view.hidden.values()].some((values) => values.size);
  const reset = element("button", { type: "button", id: "reset", disabled: !hidden, onclick: () => { view.hidden.clear(); drawAll(); } }, "Show all");
  byId("filters").replaceChildren(...names.map(filter), element("div", { class: "choices" }, ...choices, ...(names.length ? [reset] : []), theme));
}

function filter(name) {
  const axis = axisOf(name);
  const hidden = view.hidden.get(name) ?? new Set();
  const set = (value, shown) => {
    hidden[shown ? "delete" : "add"](value);
    view.hidden.set(name, hidden);
    byId("reset").disabled = ![...view.hidden.values()].some((values) => values.size);
    drawSections();
  };
  const labels = labelsOf(name);
  const legendText = element("legend", { title: axis.description }, name);
  if (axis.values.length <= MOST_BOXES) {
    return element("fieldset", { "data-axis": name }, legendText, ...axis.values.map((value, i) => element("label", {},
      element("input", { type: "checkbox", value: i, checked: !hidden.has(value), onchange: (event) => set(value, event.target.checked) }),
      labels[i])));
  }
  const select = element("select", { multiple: true, size: 4, "aria-label": name }, ...axis.values.map((value, i) =>
    element("option", { value: i, selected: !hidden.has(value) }, labels[i])));
  select.addEventListener("change", () => [...select.options].forEach((option, i) => {
    set(axis.values[i], option.selected);
  }));
  return element("fieldset", { "data-axis": name }, legendText, select);
}

function drawSections() {
  const cells = shownCells();
  const focused = document.activeElement?.id;
  const main = byId("content");
  main.querySelectorAll(".js-plotly-plot").forEach((chart) => Plotly.purge(chart));
  main.replaceChildren(...SECTIONS.filter((section) => section.shown()).map((section) => {
    const made = element("section", { id: section.id, "aria-labelledby": `${section.id}-title` },
      element("h2", { id: `${section.id}-title` }, section.title));
    if (section.good()) made.append(element("p", { class: "good" }, section.good()));
    section.fill(made, cells);
    return made;
  }));
  drawState(cells);
  if (focused) byId(focused)?.focus({ preventScroll: true });
  document.documentElement.dataset.drawn = "no";
  return drawPending().then(() => { document.documentElement.dataset.drawn = "yes"; });
}

function drawAll() {
  const focused = document.activeElement?.id;
  drawHeader();
  drawFilters();
  const drawn = drawSections();
  if (focused) byId(focused)?.focus({ preventScroll: true });
  return drawn;
}

// theme: the system's until the reader switches; paper is light

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (view.theme ? view.theme === "dark" : systemDark.matches);

const applyTheme = (dark) => { document.documentElement.dataset.theme = dark ? "dark" : "light"; };

function switchTheme() {
  view.theme = isDark() ? "light" : "dark";
  applyTheme(isDark());
  drawAll();
}

systemDark.addEventListener("change", () => {
  applyTheme(isDark());
  drawAll();
});
addEventListener("beforeprint", () => {
  applyTheme(false);
  document.documentElement.classList.add("print");
  drawSections();
});
addEventListener("afterprint", () => {
  applyTheme(isDark());
  document.documentElement.classList.remove("print");
  drawSections();
});

// a page that is served asks for what has come since

const refreshSeconds = Number(document.documentElement.dataset.refreshSeconds);

function show(document) {
  run = document;
  return drawAll();
}

let shownText = JSON.stringify(run);

async function refresh() {
  try {
    const answer = await fetch(`report.json${location.search}`, { cache: "no-cache" });
    const text = answer.ok ? JSON.stringify(await answer.json()) : shownText;
    if (text !== shownText) {
      shownText = text;
      show(JSON.parse(text));
    }
  } catch {
    byId("state").textContent = "The server does not answer; what is shown is what it said last.";
  }
  setTimeout(refresh, 1000 * refreshSeconds);
}

applyTheme(isDark());
drawAll();
if (refreshSeconds) setTimeout(refresh, 1000 * refreshSeconds);

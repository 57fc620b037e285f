// The run's document, what of it is shown, and numbers in words.
"use strict";

let run = JSON.parse(document.getElementById("data").textContent);

// what the reader has chosen; kept when a newer document arrives
const view = { hidden: new Map(), along: null, series: null, measure: null, theme: null };

const PALETTE_SIZE = 8;
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"];
const MOST_CHARACTERS = 36;

const axisNames = () => run.axes.map((axis) => axis.name);
const axisIndex = (name) => axisNames().indexOf(name);
const axisOf = (name) => run.axes[axisIndex(name)];
const measureOf = (name) => run.measures.find((measure) => measure.name === name);

// axes that have more than one value among the cells of the run
const varying = () =>
  run.axes.filter((axis, i) => new Set(run.cells.at.map((at) => at[i])).size > 1).map((axis) => axis.name);

const isHidden = (name, valueIndex) => view.hidden.get(name)?.has(run.axes[axisIndex(name)].values[valueIndex]) ?? false;

function shownCells() {
  const names = axisNames();
  return run.cells.at.map((_, cell) => cell)
    .filter((cell) => !names.some((name, i) => isHidden(name, run.cells.at[cell][i])));
}

const valueIndex = (cell, name) => run.cells.at[cell][axisIndex(name)];
const valueWord = (cell, name) => axisOf(name).values[valueIndex(cell, name)];

// a long value, such as a path, by its start and its end
function shortened(text, most = MOST_CHARACTERS) {
  const plain = text.replace(/\s+/g, " ");
  const end = Math.floor(most * 0.6);
  return plain.length <= most ? plain : `${plain.slice(0, most - end - 1)}…${plain.slice(-end)}`;
}

// values of an axis as labels: short, and no two of them alike
function labelsOf(name) {
  const axis = axisOf(name);
  if (!axis.labels) {
    const labels = axis.values.map((value) => shortened(value) || "(empty)");
    const alone = (label) => labels.indexOf(label) === labels.lastIndexOf(label);
    axis.labels = labels.map((label, i) => (alone(label) ? label : `${label} #${i + 1}`));
  }
  return axis.labels;
}

const labelOf = (cell, name) => labelsOf(name)[valueIndex(cell, name)];

// the values of some axes of a cell; a flag says its name too, since "true" alone says nothing
function wordsOf(cell, names) {
  return names.map((name) => {
    const label = labelOf(cell, name);
    if (name === "pool.recycle") return label === "true" ? "recycled" : "not recycled";
    return axisOf(name).numbers || label === "true" || label === "false" ? `${name} ${label}` : label;
  }).join(", ");
}

// groups of items by a key, in the order in which the keys first appear
function grouped(items, keyOf) {
  const groups = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(item);
  }
  return groups;
}

// numbers by size, words as the sweep names them
const rankOf = (cell, name) => axisOf(name).numbers?.[valueIndex(cell, name)] ?? valueIndex(cell, name);

const byPlace = (names) => (a, b) => {
  for (const name of names) {
    const difference = rankOf(a, name) - rankOf(b, name);
    if (difference) return difference;
  }
  return 0;
};

// what is drawn along, what has colours, and what gets panels of its own
function layoutAxes(without = []) {
  const names = varying().filter((name) => !without.includes(name));
  const pick = (wanted, left) => (left.includes(wanted) ? wanted : null);
  const free = names.filter((name) => name !== "pool.recycle");
  const most = [...free].filter((name) => axisOf(name).numbers)
    .sort((a, b) => axisOf(b).values.length - axisOf(a).values.length)[0];
  const along = pick(view.along, names) ?? pick("pool.size", free) ?? most
    ?? free.find((name) => name !== "arch") ?? free[0] ?? names[0] ?? null;
  const left = free.filter((name) => name !== along);
  const series = view.series === "" ? null : pick(view.series, left) ?? pick("arch", left) ?? left[0] ?? null;
  return { along, series, panels: left.filter((name) => name !== series) };
}

// numbers in words, as farm show has them

function scaled(value, step, units) {
  let index = 0;
  while (Math.abs(value) >= step && index < units.length - 1) {
    value /= step;
    index += 1;
  }
  return `${+value.toPrecision(3)}\u00a0${units[index]}`.trim();
}

const percent = (ratio, sign = false) => `${sign && ratio >= 0 ? "+" : ""}${(100 * ratio).toFixed(1)}%`;

function inUnit(unit, value) {
  if (value === null || value === undefined) return "–";
  if (unit === "bytes") return scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
  if (unit === "per second") return scaled(value, 1000, ["", "k", "M", "G"]);
  if (unit === "ratio") return percent(value);
  if (unit === "ns") {
    const digits = Math.abs(value) < 1000 ? 1 : 0;
    return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }
  return value.toLocaleString("en", { maximumSignificantDigits: 6 });
}

// a measure of a cell, and its range over the seeds where they differ
function withRange(measure, cell) {
  const [value, low, high] = [measure.median, measure.low, measure.high].map((column) => column?.[cell]);
  const [text, from, to] = [value, low, high].map((one) => inUnit(measure.unit, one));
  return from === to ? [text] : [text, `${from} – ${to}`];
}

// elements

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// Tables whose columns can be sorted by a button in their heads.
"use strict";

// how each table was sorted, by its name, so that drawing it anew does not undo it
const sorted = new Map();

// columns: [{head, unit, title, number, value(row), text(row)}]; a text may be a pair, the second less important
function sortableTable(name, caption, columns, rows) {
  const body = element("tbody");
  const heads = columns.map((column, i) => {
    const button = element("button", { type: "button", title: column.title ?? null, onclick: () => sortBy(i) }, column.head);
    if (column.unit) button.append(" ", element("span", { class: "unit" }, column.unit));
    return element("th", { scope: "col", class: column.number ? "number" : null }, button);
  });
  const table = element("table", {}, element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...heads)), body);

  function fill() {
    const order = sorted.get(name);
    const shown = [...rows];
    if (order) {
      const { value } = columns[order.column];
      shown.sort((a, b) => compared(value(a), value(b), order.sign));
    }
    heads.forEach((head, i) => {
      if (order?.column === i) head.setAttribute("aria-sort", order.sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...shown.map((row) => element("tr", {}, ...columns.map((column) => {
      const [text, range] = [column.text(row)].flat().map(String);
      const kind = column.number ? "number" : text.length < MOST_CHARACTERS ? "short" : "long";
      return element("td", { class: kind }, kind === "long" ? element("div", {}, text) : text,
        range ? element("span", { class: "range" }, ` ${range}`) : null);
    }))));
  }

  function sortBy(column) {
    const before = sorted.get(name);
    sorted.set(name, { column, sign: before?.column === column ? -before.sign : 1 });
    fill();
  }

  if ((sorted.get(name)?.column ?? 0) >= columns.length) sorted.delete(name);
  fill();
  return element("div", { class: "table", tabindex: "0", role: "region", "aria-label": caption }, table);
}

// what is missing comes last, whichever way
function compared(a, b, sign) {
  const [missingA, missingB] = [a === null || a === undefined, b === null || b === undefined];
  if (missingA || missingB) return missingA - missingB;
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en"));
}

// a column for a swept field
const axisColumn = (name, cellOf = (row) => row) => ({
  head: name,
  title: axisOf(name).description,
  number: Boolean(axisOf(name).numbers),
  value: (row) => rankOf(cellOf(row), name),
  text: (row) => valueWord(cellOf(row), name),
});

const UNIT_HEADS = { bytes: "", "per second": "/s", ratio: "", ns: "ns" };

const measureColumn = (measure, head = measure.name, cellOf = (row) => row) => ({
  head,
  unit: UNIT_HEADS[measure.unit] ?? measure.unit,
  title: measure.description,
  number: true,
  value: (row) => measure.median[cellOf(row)],
  text: (row) => withRange(measure, cellOf(row)),
});

// a table that a chart is the picture of, made when it is opened
function asTable(name, caption, makeTable) {
  const details = element("details", { class: "values" }, element("summary", {}, `${caption}: values`));
  details.addEventListener("toggle", () => {
    opened[details.open ? "add" : "delete"](name);
    if (details.open && details.children.length === 1) details.append(makeTable());
  });
  if (opened.has(name)) details.open = true;
  return details;
}

const opened = new Set();

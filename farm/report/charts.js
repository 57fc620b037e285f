// Charts: lines with intervals along an axis, and stacked bars, a panel for each combination of what is left.
"use strict";

const MOST_PANELS = 12;
const MOST_BARS = 48;
const MOST_PARTS = 8;
const PANEL_HEIGHT = 260;
const BAR_HEIGHT = 19;

// plotly reads some markup in texts: what comes from a run is shown as it is
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (index) => css(`--series-${(index % PALETTE_SIZE) + 1}`);
const dash = (index) => ["solid", "dash", "dot"][Math.floor(index / PALETTE_SIZE) % 3];
const symbol = (index) => SYMBOLS[index % SYMBOLS.length];

const NUMBERS = ",.6~r";

const OPTIONS = { displaylogo: false, displayModeBar: false, responsive: true, doubleClick: "reset" };

function frame(extra) {
  const grid = { gridcolor: css("--grid"), linecolor: css("--line"), tickcolor: css("--line"), zeroline: false };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: css("--font"), size: 12, color: css("--text") },
    hoverlabel: { bgcolor: css("--page"), bordercolor: css("--line"), font: { color: css("--text") } },
    showlegend: false,
    ...extra,
    xaxis: { ...grid, ticks: "outside", showline: true, automargin: true, ...extra.xaxis },
    yaxis: { ...grid, automargin: true, ...extra.yaxis },
  };
}

// where the values of an axis stand: numbers at their place, words side by side
function scaleOf(name) {
  const axis = axisOf(name);
  const labels = labelsOf(name);
  const title = { text: escaped(name), standoff: 6 };
  if (axis.numbers && (axis.log || axis.numbers.length > 2)) {
    const few = axis.numbers.length <= 10;
    const ends = [Math.min(...axis.numbers), Math.max(...axis.numbers)].map((end) => (axis.log ? Math.log10(end) : end));
    const margin = (ends[1] - ends[0]) * 0.06;
    const ticks = few ? { tickvals: axis.numbers, ticktext: labels.map(escaped) } : {};
    return {
      axis: { type: axis.log ? "log" : "linear", title, ...ticks, range: [ends[0] - margin, ends[1] + margin] },
      at: (value) => axis.numbers[value],
      lines: true,
    };
  }
  const places = labels.map((_, i) => i);
  return {
    axis: {
      type: "linear", title, tickvals: places, ticktext: labels.map(escaped), range: [-0.5, labels.length - 0.5],
    },
    at: (value, shift) => value + shift,
    lines: false,
  };
}

// Lines with intervals. points: [{cell, value, low, high, open}]; open ones are drawn dashed, with open marks.
// describe: {name, unit, y (layout of the axis), words(value), zero}
function lineChart(into, points, describe) {
  const { along, series, panels } = layoutAxes(describe.without ?? []);
  if (!points.length || along === null) {
    into.append(element("p", { class: "none" }, points.length ? "One point only; see its values." : "Nothing to show."));
    return;
  }
  const scale = scaleOf(along);
  const lines = series ? axisOf(series).values.length : 1;
  const all = grouped(points, (point) => wordsOf(point.cell, panels));
  const heights = points.flatMap((point) => [point.value, point.low ?? point.value, point.high ?? point.value]);
  const [least, most] = [Math.min(0, ...heights), Math.max(0, ...heights)];
  const room = (most - least || 1) * 0.06;
  const range = [least < 0 ? least - room : 0, most + room];
  const shift = (line, open) => ((line + (open ? 0.5 : 0) + 0.25) / lines - 0.5) * 0.6;
  const twoKinds = new Set(points.map((point) => point.open)).size > 1;

  into.append(legend(series, points, twoKinds));
  panelGrid(into, all, describe.name, (inPanel) => {
    const traces = [...grouped(inPanel, (point) => `${series ? valueIndex(point.cell, series) : 0} ${point.open}`)]
      .map(([, of]) => {
        const line = series ? valueIndex(of[0].cell, series) : 0;
        const { open } = of[0];
        const order = byPlace([along]);
        of.sort((a, b) => order(a.cell, b.cell));
        const [bars, y] = [of.some((point) => point.high > point.low), of.map((point) => point.value)];
        return {
          type: "scatter",
          mode: scale.lines ? "lines+markers" : "markers",
          x: of.map((point) => scale.at(valueIndex(point.cell, along), shift(line, open))),
          y,
          customdata: of.map((point) => point.cell),
          name: series ? escaped(labelsOf(series)[line]) : "",
          error_y: bars && {
            type: "data", symmetric: false, thickness: 1.2, width: 3,
            array: of.map((point) => point.high - point.value),
            arrayminus: of.map((point) => point.value - point.low),
          },
          line: { color: colour(line), width: open ? 1.4 : 2, dash: open ? "dash" : dash(line) },
          marker: { color: colour(line), symbol: symbol(line) + (open ? "-open" : ""), size: 7 },
          hoverinfo: "text",
          hovertext: of.map((point) => escaped(wordsOf(point.cell, varying())) + "<br>" + escaped(describe.words(point))),
        };
      });
    const shapes = describe.zero ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: css("--line"), width: 1 } }] : [];
    return [traces, frame({
      height: PANEL_HEIGHT,
      margin: { l: 8, r: 8, t: 6, b: 8 },
      xaxis: scale.axis,
      yaxis: { title: { text: escaped(describe.unit), standoff: 6 }, range, tickformat: NUMBERS, ...describe.y },
      shapes,
    })];
  });
}

// Stacked bars, a row for each cell. parts: [[measure, name]]; describe: {name, unit}
function stackedBars(into, cells, parts, describe) {
  const measures = parts.map(([name, short]) => ({ short, measure: measureOf(name) })).filter((part) => part.measure);
  const sum = (measure) => cells.reduce((total, cell) => total + (measure.median[cell] ?? 0), 0);
  const bySize = measures.map((part) => ({ ...part, sum: sum(part.measure) }))
    .filter((part) => part.sum > 0).sort((a, b) => b.sum - a.sum);
  if (!bySize.length) {
    into.append(element("p", { class: "none" }, "Nothing to show."));
    return;
  }
  // with one part more than has colours, a colour for "other" would say less
  const own = bySize.length > MOST_PARTS ? bySize.slice(0, MOST_PARTS - 1) : bySize;
  const rest = bySize.slice(own.length);
  const stack = own.map((part, i) => ({
    name: part.short, of: (cell) => part.measure.median[cell] ?? 0, colour: colour(i), pattern: PATTERNS[i],
  }));
  if (rest.length) {
    const of = (cell) => rest.reduce((total, part) => total + (part.measure.median[cell] ?? 0), 0);
    stack.push({ name: `${rest.length} others`, of, colour: css("--other"), pattern: "" });
  }
  const { series } = layoutAxes();
  const rowAxes = varying().filter((name) => name !== series && name !== "pool.recycle");
  const recycles = varying().includes("pool.recycle") ? ["pool.recycle"] : [];
  const shown = cells.slice(0, MOST_BARS);
  const total = (cell) => stack.reduce((all, part) => all + part.of(cell), 0);

  const rowNames = [...rowAxes, ...(recycles.length ? ["recycling"] : [])];
  into.append(element("ul", { class: "legend" },
    rowNames.length ? element("li", { class: "of" }, `rows: ${rowNames.join(" · ")}`) : null,
    ...stack.map((part) => element("li", {}, swatch(part.colour, part.pattern), part.name))));
  const groups = grouped(shown, (cell) => (series ? wordsOf(cell, [series]) : ""));
  panelGrid(into, groups, describe.name, (inPanel) => {
    inPanel.sort(byPlace([...rowAxes, ...recycles]));
    const rows = inPanel.map((_, i) => i);
    const traces = stack.map((part) => ({
      type: "bar",
      orientation: "h",
      name: part.name,
      y: rows,
      x: inPanel.map(part.of),
      customdata: inPanel,
      marker: {
        color: part.colour,
        line: { color: css("--page"), width: 0.7 },
        pattern: { shape: part.pattern, fillmode: "overlay", fgcolor: css("--page"), fgopacity: 0.45, size: 5, solidity: 0.3 },
      },
      hoverinfo: "text",
      hovertext: inPanel.map((cell) => `${escaped(wordsOf(cell, varying()))}<br>${part.name}: ${inUnit("ns", part.of(cell))} ${describe.unit}`),
    }));
    const totals = {
      type: "scatter", mode: "text", y: rows, x: inPanel.map(total), hoverinfo: "skip", textposition: "middle right",
      text: inPanel.map((cell) => inUnit("ns", total(cell))), textfont: { size: 11, color: css("--quiet") }, cliponaxis: false,
    };
    const words = inPanel.map((cell) => escaped(rowLabel(cell, rowAxes, recycles)));
    return [[...traces, totals], frame({
      barmode: "stack",
      bargap: 0.18,
      height: BAR_HEIGHT * rows.length + 50,
      margin: { l: 8, r: 52, t: 4, b: 46 },
      xaxis: {
        title: { text: describe.unit, standoff: 6 }, range: [0, (Math.max(...inPanel.map(total)) || 1) * 1.02],
        tickformat: NUMBERS, automargin: false, nticks: 4, tickangle: 0,
      },
      yaxis: { tickvals: rows, ticktext: words, range: [rows.length - 0.5, -0.5], showgrid: false, ticks: "" },
    })];
  });
  if (shown.length < cells.length) {
    into.append(element("p", { class: "none" }, `${MOST_BARS} of ${cells.length} cells are drawn; filter for others.`));
  }
}

const rowLabel = (cell, rowAxes, recycles) => {
  const state = recycles.length ? [labelOf(cell, "pool.recycle") === "true" ? "on" : "off"] : [];
  return [...rowAxes.map((name) => labelOf(cell, name)), ...state].join(" · ") || "all";
};

const PATTERNS = ["", "/", "", "\\", "", "x", "", "."];

// a chart for each group; a chart is one picture to those who cannot see it, and its values stand in a table
function panelGrid(into, groups, name, draw) {
  const shown = [...groups].slice(0, MOST_PANELS);
  const grid = element("div", { class: shown.length > 1 ? "panels" : "panels one" });
  into.append(grid);
  for (const [title, items] of shown) {
    const drawn = element("div", {
      class: "chart", role: "img", "aria-label": `Chart: ${name}${title ? `, ${title}` : ""}. Its values are in the table below.`,
    });
    grid.append(element("figure", {}, element("figcaption", {}, title), drawn));
    const [traces, layout] = draw(items);
    // the element has a width only once it stands in the page
    pending.push(() => Plotly.newPlot(drawn, traces, layout, OPTIONS));
  }
  if (shown.length < groups.size) {
    into.append(element("p", { class: "none" }, `${MOST_PANELS} of ${groups.size} panels are drawn; filter for others.`));
  }
}

let pending = [];

function drawPending() {
  const all = pending.map((one) => one());
  pending = [];
  return Promise.all(all);
}

// legends are the page's own: one for all panels, with line, mark and colour

const SVG = "http://www.w3.org/2000/svg";
const MARKS = {
  circle: "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z", square: "M-3.5-3.5H3.5V3.5H-3.5Z", diamond: "M0-5L5 0L0 5L-5 0Z",
  "triangle-up": "M0-4.5L4.5 3.5H-4.5Z", "triangle-down": "M0 4.5L4.5-3.5H-4.5Z",
  cross: "M-1.5-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3Z", x: "M-4-2.5l1.5-1.5L0-1.5L2.5-4L4-2.5L1.5 0L4 2.5L2.5 4L0 1.5L-2.5 4L-4 2.5L-1.5 0Z",
  star: "M0-5L1.4-1.6L5-1.5L2.2.7L3.1 4.2L0 2.2L-3.1 4.2L-2.2.7L-5-1.5L-1.4-1.6Z",
};

function svg(width, ...shapes) {
  const made = document.createElementNS(SVG, "svg");
  const attributes = { width, height: 12, viewBox: `0 -6 ${width} 12`, "aria-hidden": "true" };
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  for (const [tag, given] of shapes) {
    const shape = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(given)) shape.setAttribute(name, value);
    made.append(shape);
  }
  return made;
}

const lineSwatch = (stroke, dashes, mark, open) => svg(30,
  ["path", { d: "M0 0H30", stroke, "stroke-width": 2, "stroke-dasharray": { solid: "none", dash: "6 4", dot: "2 3" }[dashes] }],
  ["path", { d: MARKS[mark], transform: "translate(15 0)", stroke, "stroke-width": 1.5, fill: open ? css("--page") : stroke }]);

function swatch(fill, pattern) {
  const lines = { "/": ["M0 6L12-6"], "\\": ["M0-6L12 6"], x: ["M0 6L12-6M0-6L12 6"], ".": ["M5-1h2v2h-2Z"] }[pattern] ?? [];
  return svg(12, ["rect", { width: 12, height: 12, y: -6, fill }], ...lines.map((d) => ["path", { d, stroke: css("--page"), "stroke-width": 1.4 }]));
}

function legend(series, points, twoKinds) {
  const present = series ? [...new Set(points.map((point) => valueIndex(point.cell, series)))].sort((a, b) => a - b) : [];
  const items = present.map((i) => element("li", {}, lineSwatch(colour(i), dash(i), symbol(i), false), labelsOf(series)[i]));
  if (twoKinds) {
    const kinds = [["solid", false, "recycling on"], ["dash", true, "recycling off"]];
    items.push(...kinds.map(([dashes, open, words]) => element("li", {}, lineSwatch(css("--text"), dashes, "circle", open), words)));
  }
  const head = series ? element("li", { class: "of" }, series) : null;
  return items.length ? element("ul", { class: "legend" }, head, ...items) : "";
}

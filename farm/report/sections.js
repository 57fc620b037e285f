// The sections of the page, in their order; one more is one more entry.
// shown(cells): whether there is anything to show; fill(into, cells): puts it there.
"use strict";

const SEEDS = "Points are medians over the seeds, bars reach from the smallest to the largest seed.";

const GAIN_COLUMNS = () => {
  const on = (row) => row.on;
  const axes = varying().filter((name) => name !== "pool.recycle").map((name) => axisColumn(name, on));
  const busy = measureOf("busy_ns_per_packet");
  const more = [["recycle_ratio", "recycled on", on], ["drop_ratio", "dropped on", on],
    ["drop_ratio", "dropped off", (row) => row.off], ["memory_peak_bytes", "memory on", on]];
  return [
    ...axes,
    { head: "gain", number: true, title: "busy time off / on - 1", value: (row) => row.gain, text: (row) => percent(row.gain, true) },
    { head: "from", number: true, title: "fastest seed off against slowest seed on", value: (row) => row.low, text: (row) => percent(row.low, true) },
    { head: "to", number: true, title: "slowest seed off against fastest seed on", value: (row) => row.high, text: (row) => percent(row.high, true) },
    measureColumn(busy, "time on", on),
    measureColumn(busy, "time off", (row) => row.off),
    ...more.filter(([name]) => measureOf(name)).map(([name, head, cellOf]) => measureColumn(measureOf(name), head, cellOf)),
  ];
};

const shownGains = (cells) => {
  const shown = new Set(cells);
  return run.gains.filter((gain) => shown.has(gain.on) && shown.has(gain.off));
};

const chosenMeasure = () => measureOf(view.measure) ?? measureOf("busy_ns_per_packet") ?? run.measures[0];

const BETTER = { lower: "Lower is better.", higher: "Higher is better.", neither: "Neither more nor less is better." };

// plotly's axis for a measure: what it is multiplied by, and how its ticks look
const Y_AXES = {
  ratio: { factor: 100, y: { ticksuffix: "%" } },
  bytes: { factor: 1 / 1024 ** 2, y: {} },
  "per second": { factor: 1, y: { tickformat: "~s" } },
};

const SECTIONS = [
  {
    id: "gain",
    title: "Gain of recycling",
    good: () => `CPU time per ${run.per} off / on - 1: above the zero line recycling saves time. Good is a line that `
      + `stays well above zero with bars that do not touch it. Bars: fastest seed off against slowest on, and the reverse.`,
    shown: () => run.gains.length > 0,
    fill(into, cells) {
      const gains = shownGains(cells);
      const points = gains.map((gain) => ({
        cell: gain.on, value: 100 * gain.gain, low: 100 * gain.low, high: 100 * gain.high, open: false, gain,
      }));
      const words = ({ gain }) => `gain ${percent(gain.gain, true)} (${percent(gain.low, true)} to ${percent(gain.high, true)})`;
      lineChart(into, points, { name: "gain of recycling", unit: "gain, %", y: { ticksuffix: "%" }, words, zero: true, without: ["pool.recycle"] });
      into.append(sortableTable("gains", "Gain of each configuration", GAIN_COLUMNS(), gains));
    },
  },
  {
    id: "curves",
    title: "Response curves",
    good: () => `${BETTER[chosenMeasure().better]} ${SEEDS}`,
    shown: () => run.measures.length > 0,
    fill(into, cells) {
      const measure = chosenMeasure();
      const select = element("select", { id: "measure", onchange: (event) => choose({ measure: event.target.value }) },
        ...run.measures.map((one) => element("option", { value: one.name, selected: one === measure }, one.name)));
      into.append(element("p", { class: "choice" }, element("label", { for: "measure" }, "Measure "), select, ` ${measure.description}`));
      const { factor, y } = Y_AXES[measure.unit] ?? { factor: 1, y: {} };
      const scaledBy = (value) => (value === null || value === undefined ? value : factor * value);
      const swept = varying().includes("pool.recycle") && layoutAxes().along !== "pool.recycle";
      const points = cells.filter((cell) => measure.median[cell] !== null).map((cell) => ({
        cell,
        value: scaledBy(measure.median[cell]),
        low: scaledBy(measure.low?.[cell]),
        high: scaledBy(measure.high?.[cell]),
        open: swept && valueWord(cell, "pool.recycle") === "false",
      }));
      const unit = { ratio: "%", bytes: "MiB", "per second": "packets/s" }[measure.unit] ?? measure.unit;
      lineChart(into, points, { name: measure.name, unit, y, words: ({ cell }) => `${measure.name}: ${withRange(measure, cell).join(", seeds ")}` });
      const columns = () => [...varying().map((name) => axisColumn(name)), measureColumn(measure)];
      into.append(asTable("curves", measure.name, () => sortableTable("curves", measure.name, columns(), cells)));
    },
  },
  {
    id: "time",
    title: "Where the time goes",
    good: () => `Busy time per ${run.per} by what it is spent on, medians; each panel has its own scale. ` + (run.gains.length
      ? "Good: with recycling on, page_alloc, page_free and DMA mappings are gone, and what pool, ring and sync add is less."
      : "Good: a short bar, most of it work that has to be done, such as protocol, copy and application."),
    shown: () => run.categories.some(([name]) => measureOf(name)),
    fill: (into, cells) => partsSection(into, cells, "time", run.categories, `ns per ${run.per}`),
  },
  {
    id: "pages",
    title: "Where the pages are",
    good: () => "Pages by place, average over time; each panel has its own scale. Good: idle pages in cache and ring, ready for reuse. Pages in a socket or an "
      + "application cannot come back yet: if they outnumber the pool, it has to ask for new ones.",
    shown: () => run.locations.some(([name]) => measureOf(name)),
    fill: (into, cells) => partsSection(into, cells, "pages", run.locations, "pages"),
  },
  {
    id: "cells",
    title: "All cells",
    good: () => "Medians over the seeds; beside them the smallest and the largest seed where they differ.",
    shown: () => run.cells.at.length > 0,
    fill(into, cells) {
      const heads = { busy_ns_per_packet: `busy time per ${run.per}`, packets_handled_rate: "handled", drop_ratio: "dropped",
        recycle_ratio: "recycled", memory_peak_bytes: "peak memory", latency_p99_ns: "latency p99" };
      const measures = Object.keys(heads).map(measureOf).filter(Boolean);
      const seeds = { head: "seeds", number: true, value: (cell) => run.cells.seeds[cell], text: (cell) => run.cells.seeds[cell] };
      into.append(sortableTable("cells", "Cells and their headline measures",
        [...varying().map((name) => axisColumn(name)), ...measures.map((one) => measureColumn(one, heads[one.name])), seeds], cells));
    },
  },
  {
    id: "answers",
    title: "Answers that were kept",
    good: () => "What compare, gate, advise and doctor found about this run, its sweep or a host, and somebody kept.",
    shown: () => run.answers.length > 0,
    fill(into) {
      run.answers.forEach((answer, number) => {
        into.append(element("h3", {}, answer.title), ...answer.sentences.map((sentence) => element("p", {}, sentence)));
        answer.tables.forEach((table, place) => {
          const columns = table.heads.map((head, i) => ({ head, number: i >= table.text_columns, value: (row) => numeric(row[i]), text: (row) => row[i] }));
          const make = () => sortableTable(`answer ${number} ${place}`, table.title || answer.title, columns, table.rows);
          into.append(place ? asTable(`answer ${number} ${place}`, table.title, make) : make());
        });
      });
    },
  },
  {
    id: "failures",
    title: "Failures",
    good: () => "Trials that broke and have no record. Good: none.",
    shown: () => run.trials.failed > 0,
    fill(into) {
      const columns = [
        { head: "kind", value: (row) => row.kind, text: (row) => row.kind },
        { head: "message", value: (row) => row.message, text: (row) => row.message },
        { head: "trial", value: (row) => JSON.stringify(row.fields), text: (row) => Object.entries(row.fields).map(([k, v]) => `${k} = ${v}`).join(", ") },
      ];
      into.append(sortableTable("failures", `${run.failures.length} of ${plural(run.trials.failed, "failed trial")}`, columns, run.failures));
    },
  },
  { id: "provenance", title: "Where this comes from", good: () => "", shown: () => true, fill: (into) => provenance(into) },
];

// the number that a cell of a kept table holds, in its unit; else its words; nothing if there is none
function numeric(text) {
  if (text === "-") return null;
  const [, digits, unit] = text.match(/^([-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?) ?(%|[KMGT]i?B|B|[kMG])?$/) ?? [];
  const factors = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4, k: 1e3, M: 1e6, G: 1e9 };
  return digits === undefined ? text : Number(digits.replaceAll(",", "")) * (factors[unit] ?? 1);
}

function partsSection(into, cells, id, parts, unit) {
  stackedBars(into, cells, parts, { name: SECTIONS.find((one) => one.id === id).title, unit });
  const columns = () => [...varying().map((name) => axisColumn(name)),
    ...parts.filter(([name]) => measureOf(name)).map(([name, short]) => measureColumn(measureOf(name), short))];
  into.append(asTable(id, `By cell, ${unit}`, () => sortableTable(id, unit, columns(), cells)));
}

function provenance(into) {
  const of = run.provenance;
  const list = (pairs) => element("dl", {}, ...pairs.filter(([, text]) => text)
    .flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));
  const estimates = Object.entries(of.estimates).map(([arch, number]) => `${arch} ${number}`).join(", ");
  into.append(list([
    ["sweep", `${run.sweep}, ${plural(run.planned_cells, "cell")}, ${[...new Set(of.seeds)].join(" to ")} ${of.seeds[1] === 1 ? "seed" : "seeds"} each`],
    ["run", run.run],
    ["trials", `${run.trials.recorded} of ${run.trials.planned} recorded, ${run.trials.failed} failed`],
    ["set besides axes", Object.entries(of.fixed).map(([name, value]) => `${name} = ${value}`).join(", ")],
    ["estimates", estimates && `of ${of.parameters} numbers of a profile nobody has measured: ${estimates}`],
  ]));
  const text = (name) => ({ head: name.replaceAll("_", " "), value: (row) => row[name], text: (row) => `${row[name] ?? ""}` });
  const number = (name) => ({ ...text(name), number: true });
  const versions = { head: "versions", value: (row) => JSON.stringify(row.versions), text: (row) => Object.entries(row.versions).map(([n, v]) => `${n} ${v}`).join(", ") };
  const seconds = { ...number("cpu_seconds"), text: (row) => row.cpu_seconds.toFixed(1) };
  if (of.origins.length) {
    into.append(sortableTable("origins", "Where the trials ran", [text("host"), text("executor"), number("trials"), number("retries"), seconds,
      text("first_started_at"), text("last_started_at"), text("model_digest"), versions], of.origins));
  }
  into.append(
    sortableTable("drivers", "Starts of the run", ["started_at", "host", "executor", "platform", "machine", "cpus"].map(text), of.drivers),
    element("details", {}, element("summary", {}, "The resolved sweep: every field"), element("pre", {}, of.sweep_toml)),
  );
}

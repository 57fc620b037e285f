// Grafana's bar chart belongs to its server, not to @grafana/ui: this one is made of the same parts.
import React from 'react';
import uPlot from 'uplot';
import { FieldType, formattedValueToString, getFieldDisplayName, getFieldSeriesColor, ui } from './grafana.cjs';
import { AxisPlacement, LegendDisplayMode, ScaleDistribution } from '@grafana/schema';

const X = 'x';
const Y = 'y';
// as Grafana does for units of 1024
const BINARY_INCREMENTS = Array.from({ length: 53 }, (_, power) => 2 ** power);

function plotConfig(categories, fields, options, config, theme) {
  const stacked = options.stacking === 'normal';
  const builder = new ui.UPlotConfigBuilder('utc');
  const last = categories.values.length - 0.5;
  builder.addScale({
    scaleKey: X,
    isTime: false,
    orientation: 0,
    direction: 1,
    distribution: ScaleDistribution.Ordinal,
    range: () => [-0.5, last],
  });
  const { min, max, custom } = config;
  builder.addScale({ scaleKey: Y, orientation: 1, direction: 1, min, max, softMax: custom.axisSoftMax });
  builder.addAxis({
    scaleKey: X,
    isTime: false,
    placement: AxisPlacement.Bottom,
    theme,
    grid: { show: false },
    ticks: { show: false },
    splits: () => categories.values.map((_, index) => index),
    values: (plot, splits) => splits.map((index) => categories.values[index]),
    filter: (plot, splits) => splits,
  });
  builder.addAxis({
    scaleKey: Y,
    placement: AxisPlacement.Left,
    theme,
    incrs: config.unit === 'bytes' ? BINARY_INCREMENTS : undefined,
    formatValue: (value, decimals) => formattedValueToString(fields[0].display(value, decimals)),
  });
  const group = options.groupWidth;
  const slot = stacked ? group : group / fields.length;
  const width = slot * options.barWidth;
  const base = categories.values.map(() => 0);
  const data = [categories.values.map((_, index) => index)];
  fields.forEach((field, index) => {
    const bottoms = base.slice();
    const tops = field.values.map((value, at) => (value === null || value === undefined ? null : bottoms[at] + value));
    if (stacked) {
      tops.forEach((top, at) => (base[at] = top ?? base[at]));
    }
    const left = (stacked ? -group / 2 : -group / 2 + index * slot) + (slot - width) / 2;
    const values = (make) => ({ unit: 1, values: make });
    const disp = {
      x0: values((plot) => plot.data[0].map((x) => x + left)),
      size: values((plot) => plot.data[0].map(() => width)),
    };
    if (stacked) {
      disp.y0 = values(() => bottoms);
      disp.y1 = values(() => tops);
    }
    data.push(stacked ? tops : field.values);
    builder.addSeries({
      scaleKey: Y,
      theme,
      show: true,
      pxAlign: true,
      lineWidth: custom.lineWidth,
      lineColor: getFieldSeriesColor(field, theme).color,
      fillOpacity: custom.fillOpacity,
      gradientMode: custom.gradientMode,
      colorMode: undefined,
      showPoints: 'never',
      pathBuilder: uPlot.paths.bars({ disp, gap: 0 }),
    });
  });
  return { builder, data };
}

// frame: one field of strings (or options.xField), then a field of numbers for each kind of bar
export function BarChart({ frame, options, config, theme, width, height }) {
  const categories =
    frame.fields.find((field) => field.name === options.xField) ??
    frame.fields.find((field) => field.type === FieldType.string);
  const fields = frame.fields.filter((field) => field.type === FieldType.number && field !== categories);
  const items = fields.map((field) => ({
    label: getFieldDisplayName(field, frame),
    color: getFieldSeriesColor(field, theme).color,
    yAxis: 1,
  }));
  const { placement } = options.legend;
  const legend = (
    <ui.VizLayout.Legend placement={placement}>
      <ui.VizLegend placement={placement} displayMode={LegendDisplayMode.List} items={items} />
    </ui.VizLayout.Legend>
  );
  const { builder, data } = plotConfig(categories, fields, options, config, theme);
  return (
    <ui.VizLayout width={width} height={height} legend={legend}>
      {(inner, outer) => <ui.UPlotChart config={builder} data={data} width={inner} height={outer} />}
    </ui.VizLayout>
  );
}

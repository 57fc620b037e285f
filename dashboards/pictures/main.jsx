// Draws one dashboard: index.html?board=UID&theme=light&from=SECONDS&to=SECONDS&scrape=SECONDS&var-NAME=VALUE. Ends
// with "ready HEIGHT" as the title of the page, or with what went wrong.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createTheme,
  dateTime,
  FieldConfigOptionsRegistry,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  transformDataFrame,
  ui,
} from './grafana.cjs';
import { BarChart } from './barchart.jsx';
import { framesOf } from './prometheus.js';
import { laidOut, substitution, variablesOf } from './variables.js';

// the grid of Grafana: 24 columns, rows of 30 pixels, 8 between them
const COLUMNS = 24;
const ROW_PIXELS = 30;
const GAP_PIXELS = 8;
const HEADER_PIXELS = 96;
const SHOWN_SECONDS = 3600;

const page = new URLSearchParams(location.search);
const theme = createTheme({ colors: { mode: page.get('theme') ?? 'light' } });
const scrape = Number(page.get('scrape') ?? 15);
// not Date.now(): the browser's clock runs ahead, so that it does not wait
const now = Number(page.get('to'));
const range = { from: Math.max(Number(page.get('from') ?? 0), now - SHOWN_SECONDS), to: now, step: scrape };
const builtIn = {
  __interval: `${range.step}s`,
  __rate_interval: `${4 * scrape}s`,
  __range: `${range.to - range.from}s`,
};
const timeRange = {
  from: dateTime(range.from * 1000),
  to: dateTime(range.to * 1000),
  raw: { from: dateTime(range.from * 1000), to: dateTime(range.to * 1000) },
};

// what Grafana's server part registers when it starts
const property = (path, isCustom) => ({
  id: path,
  path: isCustom ? path.replace(/^custom\./, '') : path,
  name: path,
  isCustom,
  editor: () => null,
  override: () => null,
  process: (value) => value,
  shouldApply: () => true,
  settings: {},
  getItemsCount: () => 0,
});
const STANDARD = 'unit min max decimals displayName noValue color thresholds mappings links'.split(' ');
const CUSTOM = 'align axisPlacement axisSoftMax cellOptions drawStyle fillOpacity gradientMode lineWidth showPoints';
window.grafanaBootData = { user: {}, settings: {}, navTree: [] };
standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((path) => property(path, false)));
standardTransformersRegistry.setInit(() => {
  // some are there under two names
  const transformers = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
  return [...transformers.values()].map((one) => ({ ...one, transformation: () => Promise.resolve(one) }));
});
const registry = new FieldConfigOptionsRegistry(() => [
  ...STANDARD.map((path) => property(path, false)),
  ...CUSTOM.split(' ').map((name) => property(`custom.${name}`, true)),
]);

const same = (value) => value;

function Stat({ panel, frames, width, height }) {
  const { options, fieldConfig } = panel;
  const values = getFieldDisplayValues({
    fieldConfig,
    reduceOptions: options.reduceOptions,
    replaceVariables: same,
    theme,
    data: frames,
    timeZone: 'utc',
  });
  return (
    <ui.VizRepeater
      source={values}
      getValues={() => values}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      width={width}
      height={height}
      orientation={options.orientation}
      autoGrid={true}
      renderCounter={0}
      renderValue={({ value, alignmentFactors, width, height, count }) => (
        <ui.BigValue
          value={value.display}
          count={count}
          alignmentFactors={alignmentFactors}
          colorMode={options.colorMode}
          graphMode={options.graphMode}
          justifyMode={options.justifyMode}
          textMode={options.textMode}
          width={width}
          height={height}
          theme={theme}
        />
      )}
    />
  );
}

function Content({ panel, frames, width, height }) {
  if (!frames.some((frame) => frame.length)) {
    return <div style={{ height, display: 'grid', placeItems: 'center' }}>No data</div>;
  }
  switch (panel.type) {
    case 'stat':
      return <Stat panel={panel} frames={frames} width={width} height={height} />;
    case 'table':
      return <ui.Table data={frames[0]} width={width} height={height} />;
    case 'timeseries':
      return (
        <ui.TimeSeries
          frames={frames}
          timeRange={timeRange}
          timeZone="utc"
          width={width}
          height={height}
          structureRev={1}
          legend={panel.options.legend}
          options={panel.options}
          replaceVariables={same}
        />
      );
    case 'barchart': {
      const { options, fieldConfig } = panel;
      return (
        <BarChart
          frame={frames[0]}
          options={options}
          config={fieldConfig.defaults}
          theme={theme}
          width={width}
          height={height}
        />
      );
    }
    default:
      throw new Error(`no way to draw a panel of type ${panel.type}`);
  }
}

async function prepared({ panel, variables, y }) {
  const title = substitution(variables, builtIn, (one) => one.text)(panel.title ?? '');
  if (panel.type === 'row') {
    return { panel, y, title, frames: [] };
  }
  const raw = await framesOf(panel.targets, substitution(variables, builtIn), range);
  const configs = raw.length ? (panel.transformations ?? []) : [];
  const data = await lastValueFrom(transformDataFrame(configs, raw, { interpolate: same }));
  const frames = applyFieldOverrides({
    data,
    theme,
    timeZone: 'utc',
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: same,
  });
  // colours by name ask for them
  cacheFieldDisplayNames(frames);
  return { panel, y, title, frames };
}

function Placed({ column, item: { panel, y, title, frames } }) {
  const { x, w, h } = panel.gridPos;
  const box = {
    position: 'absolute',
    left: x * column,
    top: y * (ROW_PIXELS + GAP_PIXELS),
    width: w * column - GAP_PIXELS,
    height: h * (ROW_PIXELS + GAP_PIXELS) - GAP_PIXELS,
  };
  if (panel.type === 'row') {
    return (
      <div style={{ ...box, display: 'flex', alignItems: 'center', gap: 4, ...theme.typography.h6 }}>
        <ui.Icon name="angle-down" /> {title}
      </div>
    );
  }
  return (
    <div style={box}>
      <ui.PanelChrome title={title} description={panel.description} width={box.width} height={box.height}>
        {(width, height) => <Content panel={panel} frames={frames} width={width} height={height} />}
      </ui.PanelChrome>
    </div>
  );
}

function Header({ title, variables }) {
  const border = { border: `1px solid ${theme.colors.border.medium}`, padding: '0 8px', lineHeight: '30px' };
  return (
    <div style={{ height: HEADER_PIXELS, overflow: 'hidden' }}>
      <h3 style={{ margin: '4px 0 12px' }}>{title}</h3>
      <div style={{ display: 'flex', gap: 16 }}>
        {variables.map(({ name, label, text }) => (
          <div key={name} style={{ display: 'flex' }}>
            <ui.InlineLabel width="auto">{label}</ui.InlineLabel>
            <span style={{ ...border, background: theme.components.input.background }}>{text}</span>
          </div>
        ))}
      </div>
    </div>
  );
}

async function draw() {
  const dashboard = await (await fetch(`/json/${page.get('board')}.json`)).json();
  const variables = await variablesOf(dashboard, page, builtIn);
  const items = await Promise.all(laidOut(dashboard, variables).map(prepared));
  const rows = Math.max(...items.map(({ panel, y }) => y + panel.gridPos.h));
  const height = HEADER_PIXELS + rows * (ROW_PIXELS + GAP_PIXELS) + 2 * GAP_PIXELS;
  const column = (innerWidth - GAP_PIXELS) / COLUMNS;
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <ui.GlobalStyles />
      <div style={{ background: theme.colors.background.canvas, height, padding: GAP_PIXELS, boxSizing: 'border-box' }}>
        <Header title={dashboard.title} variables={variables} />
        <div style={{ position: 'relative' }}>
          {items.map((item, index) => (
            <Placed key={index} column={column} item={item} />
          ))}
        </div>
      </div>
    </ThemeContext.Provider>
  );
  setTimeout(() => {
    document.title = document.title.startsWith('error') ? document.title : `ready ${height}`;
  }, 1000);
}

const failed = (error) => {
  document.title = `error: ${error?.message ?? error}`;
};
window.addEventListener('error', (event) => failed(event.error));
window.addEventListener('unhandledrejection', (event) => failed(event.reason));
draw().catch(failed);

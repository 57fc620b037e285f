// Answers of Prometheus as Grafana's data frames, shaped as its own data source shapes them.
import { FieldType, toDataFrame } from './grafana.cjs';

async function ask(path, parameters) {
  const answer = await (await fetch(`/api/v1/${path}?${new URLSearchParams(parameters)}`)).json();
  if (answer.status !== 'success') {
    throw new Error(`${answer.error}: ${parameters.query}`);
  }
  return answer.data;
}

// label_values(metric{...}, label)
export async function labelValues(definition) {
  const [, selector, label] = /^label_values\((.*), *(\w+)\)$/s.exec(definition) ?? [];
  if (!label) {
    throw new Error(`not a query of label values: ${definition}`);
  }
  const { result } = await ask('query', { query: `group by (${label}) (${selector})` });
  return result.map((one) => one.metric[label]).filter((value) => value !== undefined);
}

const number = (text) => ({ NaN, '+Inf': Infinity, '-Inf': -Infinity })[text] ?? Number(text);

function seriesName(metric, legend) {
  if (legend) {
    return legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => metric[label] ?? '');
  }
  const labels = Object.entries(metric).filter(([name]) => name !== '__name__');
  const inner = labels.map(([name, value]) => `${name}="${value}"`).join(', ');
  return `${metric.__name__ ?? ''}{${inner}}`;
}

function seriesFrame(target, metric, samples) {
  const name = seriesName(metric, target.legendFormat);
  return toDataFrame({
    refId: target.refId,
    name,
    fields: [
      { name: 'Time', type: FieldType.time, values: samples.map(([time]) => time * 1000) },
      {
        name: 'Value',
        type: FieldType.number,
        values: samples.map(([, value]) => number(value)),
        labels: metric,
        config: { displayNameFromDS: name },
      },
    ],
  });
}

function tableFrame(target, result, several) {
  const labels = [...new Set(result.flatMap((one) => Object.keys(one.metric)))].sort();
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map((one) => one.value[0] * 1000) },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        values: result.map((one) => one.metric[label] ?? ''),
      })),
      {
        name: several ? `Value #${target.refId}` : 'Value',
        type: FieldType.number,
        values: result.map((one) => number(one.value[1])),
      },
    ],
  });
}

// frames of all queries of a panel; range: {from, to, step} in seconds
export async function framesOf(targets, substitute, range) {
  const answers = targets.map(async (target) => {
    const query = substitute(target.expr);
    if (!target.instant) {
      const { result } = await ask('query_range', { query, start: range.from, end: range.to, step: range.step });
      return result.map((one) => seriesFrame(target, one.metric, one.values));
    }
    const { result } = await ask('query', { query, time: range.to });
    if (target.format === 'table') {
      return result.length ? [tableFrame(target, result, targets.length > 1)] : [];
    }
    return result.map((one) => seriesFrame(target, one.metric, [one.value]));
  });
  return (await Promise.all(answers)).flat();
}

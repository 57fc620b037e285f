// A dashboard's variables: their values as Grafana picks them at first, substitution, repeated rows.
import { labelValues } from './prometheus.js';

const ALL = '$__all';
const escaped = (value) => value.replace(/[\\^$.*+?()[\]{}|]/g, '\\\\$&');

function inQuery(variable) {
  if (!variable.multi) {
    return variable.values[0] ?? '';
  }
  return variable.values.length === 1 ? escaped(variable.values[0]) : `(${variable.values.map(escaped).join('|')})`;
}

// each {name, label, multi, values, text}; chosen: URLSearchParams with var-NAME=VALUE
export async function variablesOf(dashboard, chosen, builtIn) {
  const variables = [];
  for (const one of dashboard.templating.list) {
    if (one.type !== 'query') {
      continue;
    }
    const query = substitution(variables, builtIn)(one.query.query);
    const options = (await labelValues(query)).sort();
    const wanted = chosen.getAll(`var-${one.name}`);
    const all = one.includeAll && !wanted.length && [one.current?.value].flat().includes(ALL);
    const found = wanted.length ? wanted : options;
    const values = all || (one.multi && wanted.length) ? found : found.slice(0, 1);
    const text = all ? 'All' : values.join(' + ') || '-';
    variables.push({ name: one.name, label: one.label || one.name, multi: one.multi, values, text });
  }
  return variables;
}

// text with $name, ${name} and ${name:regex} replaced
export function substitution(variables, builtIn, show = inQuery) {
  const values = new Map(variables.map((one) => [one.name, show(one)]));
  return (text) =>
    text.replace(/\$(?:{(\w+)(?::\w+)?}|(\w+))/g, (whole, braced, bare) => {
      const name = braced ?? bare;
      return builtIn[name] ?? values.get(name) ?? whole;
    });
}

// panels with rows repeated and everything at its place: each {panel, variables, y}
export function laidOut(dashboard, variables) {
  const sections = [{ row: null, panels: [] }];
  for (const panel of dashboard.panels) {
    if (panel.type === 'row') {
      sections.push({ row: panel, panels: panel.panels ?? [] });
    } else {
      sections.at(-1).panels.push(panel);
    }
  }
  const placed = [];
  let shift = 0;
  for (const { row, panels } of sections) {
    const members = row ? [row, ...panels] : panels;
    const height = Math.max(0, ...members.map((one) => one.gridPos.y + one.gridPos.h)) - (row?.gridPos.y ?? 0);
    const repeated = variables.find((one) => one.name === row?.repeat);
    const rounds = repeated
      ? repeated.values.map((value) =>
          variables.map((one) => (one === repeated ? { ...one, values: [value], text: value } : one))
        )
      : [variables];
    rounds.forEach((scoped, round) => {
      placed.push(...members.map((panel) => ({ panel, variables: scoped, y: panel.gridPos.y + shift + round * height })));
    });
    shift += (rounds.length - 1) * height;
  }
  return placed;
}

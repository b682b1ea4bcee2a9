const $ = (id) => document.getElementById(id);
const LAYERS = { ours: DATA.experiment, paper: "printed in the paper" };
const Z = 1.959963984540054;
const state = { x: "avg_flatness_rloss", y: "test_rloss_pgd", layers: new Set([DATA.isPaper ? "paper" : "ours"]),
  box: null, families: new Set(), curve: "rloss", time: 1, direction: null };
const views = {};
const dark = matchMedia("(prefers-color-scheme: dark)");

const inDark = { "#000000": "#ffffff", "#545454": "#b8b8b8", "#0072B2": "#4ba3dd" };
const shade = (color) => (dark.matches && inDark[color]) || color;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
const number = (value, digits = 3) => (value === undefined || value === null ? "–" : value.toFixed(digits));
const words = (name) => (DATA.measures[name] ? DATA.measures[name].words : name);
const title = (name) => words(name) + (DATA.measures[name]?.low ? ` (${DATA.measures[name].low})` : "");

/* Statistics, as scipy computes them. */
function pearson(x, y) {
  const n = x.length, mean = (v) => v.reduce((a, b) => a + b, 0) / n, mx = mean(x), my = mean(y);
  let xy = 0, xx = 0, yy = 0;
  for (let i = 0; i < n; i++) { const a = x[i] - mx, b = y[i] - my; xy += a * b; xx += a * a; yy += b * b; }
  return xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : NaN;
}
function ranks(values) {
  const order = values.map((_, i) => i).sort((a, b) => values[a] - values[b]), found = new Array(values.length);
  for (let i = 0; i < order.length; ) {
    let j = i;
    while (j + 1 < order.length && values[order[j + 1]] === values[order[i]]) j++;
    for (let k = i; k <= j; k++) found[order[k]] = (i + j) / 2 + 1;
    i = j + 1;
  }
  return found;
}
const spearman = (x, y) => pearson(ranks(x), ranks(y));
function withInterval(r, n) {
  if (!Number.isFinite(r)) return "–";
  if (n <= 3 || Math.abs(r) >= 1) return r.toFixed(2);
  const ends = [-1, 1].map((side) => Math.tanh(Math.atanh(r) + (side * Z) / Math.sqrt(n - 3)));
  return `${r.toFixed(2)} [${ends.map((end) => end.toFixed(2)).join(", ")}]`;
}

/* What is shown and what is selected. */
function points() {
  return DATA.models
    .filter((m) => state.layers.has(m.layer) && m.values[state.x] !== undefined && m.values[state.y] !== undefined)
    .map((m) => ({ variant: m.variant, label: m.label, layer: m.layer, layerWords: LAYERS[m.layer],
      family: DATA.families[m.family].label, key: m.family, settings: m.settings || "as in the paper",
      x: m.values[state.x], y: m.values[state.y], named: m.variant === "at" }));
}
function chosen(shown) {
  const box = state.box;
  const within = (p) => !box || (p.x >= box.x[0] && p.x <= box.x[1] && p.y >= box.y[0] && p.y <= box.y[1]);
  return shown.filter((p) => within(p) && (!state.families.size || state.families.has(p.key)));
}
const isSelection = () => Boolean(state.box) || state.families.size > 0;

/* Pictures. */
function look() {
  const ink = dark.matches ? "#e6e8eb" : "#1b1f24", line = dark.matches ? "#3a414a" : "#dfe3e8";
  const axis = { labelColor: ink, titleColor: ink, gridColor: line, domainColor: ink, tickColor: ink,
    titleFontWeight: "normal", titleFontSize: 13, labelFontSize: 12 };
  return { background: "transparent", view: { stroke: line }, axis, text: { color: ink },
    legend: { labelColor: ink, titleColor: ink, labelLimit: 240 }, range: { category: dark.matches
      ? ["#ffffff", "#56B4E9", "#E69F00", "#4fd1a5", "#ff9d5c", "#CC79A7", "#F0E442", "#4ba3dd"]
      : ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#545454"] } };
}
async function draw(name, target, rows, change = (spec) => spec) {
  const spec = change(structuredClone(CHARTS[name]));
  spec.data = { values: rows };
  for (const layer of spec.layer ?? []) if (layer.data?.values?.length === 0 || layer.data?.name) delete layer.data;
  delete spec.datasets;
  const options = { actions: false, renderer: "svg", config: look(), tooltip: { theme: dark.matches ? "dark" : "light" } };
  const made = await vegaEmbed($(target), spec, options);
  if (views[name]) views[name].finalize();
  views[name] = made.view;
  return made.view;
}
async function drawScatter() {
  state.box = null;
  const view = await draw("scatter", "scatter", points(), (spec) => {
    for (const layer of spec.layer) {
      const e = layer.encoding;
      if (e.x.title !== undefined) { e.x.title = title(state.x); e.y.title = title(state.y); }
      for (const channel of [e.color, e.fill?.condition ?? e.fill]) {
        if (channel?.scale?.range) channel.scale.range = channel.scale.range.map(shade);
      }
    }
    return spec;
  });
  let waiting = 0;
  view.addSignalListener("brush", (_, value) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const sorted = (pair) => [...pair].sort((a, b) => a - b);
      state.box = value.x && value.y ? { x: sorted(value.x), y: sorted(value.y) } : null;
      follow();
    }, 60);
  });
  follow();
}
function drawCurves(selected) {
  const slugs = [...new Set(selected.map((p) => p.variant))].filter((slug) => DATA.curves[slug]);
  const all = isSelection() ? slugs : ["at", "trades-6", "awp-0.01", "self-supervision-4"].filter((s) => DATA.curves[s]);
  const shown = all.slice(0, 8);
  const rows = shown.flatMap((slug) => DATA.curves[slug].flatMap((row) => ["test", "train"]
    .filter((split) => row[`${split}_${state.curve}`] !== undefined)
    .map((split) => ({ variant: slug, label: DATA.labels[slug] ?? slug, split, epoch: row.epoch,
      value: row[`${split}_${state.curve}`] }))));
  const late = rows.filter((row) => row.epoch > 0.05).map((row) => row.value);
  const range = late.length ? [Math.min(...late), Math.max(...late)] : [0, 1];
  $("curves-note").textContent = rows.length === 0 ? "No training curves for this selection."
    : `${isSelection() ? "" : "Nothing is selected: the baseline and three methods. "}` +
      `${all.length > shown.length ? `The first ${shown.length} of ${all.length} selected. ` : ""}` +
      "The vertical axis is set by what follows the first twentieth of the training.";
  return draw("curves", "curves-chart", rows, (spec) => {
    for (const layer of spec.layer) {
      layer.encoding.y.title = state.curve === "rloss" ? "RLoss" : "RErr (%)";
      layer.encoding.y.scale = { domain: range, clamp: true, nice: true, zero: false };
    }
    return spec;
  });
}
function drawPaths() {
  const rows = [];
  for (const [slug, path] of Object.entries(DATA.paths)) {
    const until = path.slice(1).filter((row) => row.epoch <= state.time + 1e-9);
    const family = DATA.families[DATA.models.find((m) => m.variant === slug)?.family];
    until.forEach((row, i) => rows.push({ ...row, variant: slug, label: DATA.labels[slug] ?? slug,
      color: family ? shade(family.color) : "#808080", latest: i === until.length - 1 }));
  }
  const every = Object.values(DATA.paths).flat().filter((row) => row.epoch > 0.1);
  const range = (name) => [Math.min(...every.map((r) => r[name])), Math.max(...every.map((r) => r[name]))];
  return draw("paths", "paths-chart", rows, (spec) => {
    for (const layer of spec.layer) {
      layer.encoding.x.scale = { domain: range("flatness"), clamp: true, nice: true };
      layer.encoding.y.scale = { domain: range("rloss"), clamp: true, nice: true, zero: false };
    }
    return spec;
  });
}
function drawLandscapes() {
  const rows = DATA.landscapes.filter((row) => row.direction === state.direction)
    .map((row) => ({ ...row, label: DATA.labels[row.variant] ?? row.variant }));
  return draw("landscapes", "landscapes-chart", rows);
}

/* Tables. */
function follow() {
  const shown = points(), selected = chosen(shown);
  const body = $("coefficients").tBodies[0];
  body.replaceChildren(...[...state.layers].map((layer) => {
    const rows = selected.filter((p) => p.layer === layer), x = rows.map((p) => p.x), y = rows.map((p) => p.y);
    return element("tr", {}, element("td", { textContent: LAYERS[layer] }),
      element("td", { textContent: rows.length }),
      element("td", { textContent: withInterval(pearson(x, y), rows.length) }),
      element("td", { textContent: withInterval(spearman(x, y), rows.length) }));
  }));
  const table = $("selection");
  table.tHead.replaceChildren(element("tr", {}, ...["model", words(state.x), words(state.y)].map((text) =>
    element("th", { textContent: text, scope: "col" }))));
  table.tBodies[0].replaceChildren(...[...selected].sort((a, b) => a.y - b.y).map((p) =>
    element("tr", { title: p.settings }, element("td", { textContent: p.layer === "paper" && state.layers.size > 1
      ? `${p.label} (printed)` : p.label }), element("td", { textContent: number(p.x) }),
    element("td", { textContent: number(p.y) }))));
  drawCurves(selected.filter((p) => p.layer === "ours" || DATA.isPaper));
}
function drawFamilies() {
  $("families").replaceChildren(...Object.entries(DATA.families).map(([key, family]) => {
    const shapes = { circle: "M-.8,0a.8,.8 0 1,0 1.6,0a.8,.8 0 1,0 -1.6,0", square: "M-.7,-.7H.7V.7H-.7Z",
      diamond: "M0,-1L.8,0L0,1L-.8,0Z", "triangle-up": "M0,-.9L.9,.7H-.9Z", "triangle-down": "M0,.9L.9,-.7H-.9Z",
      cross: "M-.3,-1H.3V-.3H1V.3H.3V1H-.3V.3H-1V-.3H-.3Z" };
    const button = element("button", { type: "button", onclick: () => {
      if (!state.families.delete(key)) state.families.add(key);
      drawFamilies(); follow();
    } });
    button.setAttribute("aria-pressed", state.families.has(key));
    button.innerHTML = `<svg viewBox="-1.1 -1.1 2.2 2.2" aria-hidden="true"><path d="${shapes[family.shape] ??
      family.shape}" fill="${shade(family.color)}" stroke="${shade(family.color)}" stroke-width=".2"/></svg>`;
    button.append(family.label);
    return button;
  }));
}
function drawClaims() {
  const kind = (verdict) => (/^(reproduced|holds)/.test(verdict) ? "yes" : /not testable/.test(verdict) ? "open" : "no");
  const listed = (target, claims) => $(target).replaceChildren(...claims.map((claim) => {
    const entry = element("details", {}), head = element("summary", {});
    head.append(element("span", { className: `verdict ${kind(claim.verdict)}`, textContent: claim.verdict }),
      ` · ${claim.statement}`);
    const tests = claim.tests.map((test) => {
      const interval = test.low === null ? "" : ` [${number(test.low, 2)}, ${number(test.high, 2)}]`;
      const value = test.value === null ? test.note : `${number(test.value, 2)}${interval}`;
      const printed = test.published === null ? "" : `; printed numbers ${number(test.published, 2)}`;
      return element("li", { textContent: `${test.statistic}: ${value}${printed} – ${test.outcome}` +
        (test.decides ? "" : " (beside it)") });
    });
    const printed = claim.published ? ` ${claim.published[0].toUpperCase()}${claim.published.slice(1)}.` : "";
    entry.append(head, element("p", { textContent: `Rule: ${claim.rule}${printed}` }), element("ul", {}, ...tests));
    const place = claim.place;
    if (place.section || place.x) {
      const link = element("a", { href: `#${place.section ?? "models"}`, textContent: "See it in the plot" });
      link.onclick = () => { if (place.x) { pick("x", place.x); pick("y", place.y); drawScatter(); } };
      entry.append(element("p", {}, link));
    }
    return entry;
  }));
  listed("claims", DATA.claims);
  listed("later-claims", DATA.laterClaims);
  $("later").hidden = !DATA.laterClaims.length;
}
function pick(axis, name) { state[axis] = name; $(`pick-${axis}`).value = name; }

/* Controls. */
function options(select, names, text, value, change) {
  select.replaceChildren(...names.map((name) => element("option", { value: name, textContent: text(name) })));
  select.value = value;
  select.onchange = () => change(select.value);
}
function start() {
  const names = Object.keys(DATA.measures);
  if (!names.includes(state.x)) state.x = names[0];
  if (!names.includes(state.y)) state.y = names[names.length - 1];
  for (const axis of ["x", "y"]) options($(`pick-${axis}`), names, words, state[axis],
    (name) => { state[axis] = name; drawScatter(); });
  for (const layer of ["ours", "paper"]) $(`show-${layer}`).onchange = (event) => {
    state.layers[event.target.checked ? "add" : "delete"](layer);
    drawScatter();
  };
  if (DATA.isPaper) $("layers").hidden = true;
  $("clear").onclick = () => { state.families.clear(); drawFamilies(); drawScatter(); };
  $("pick-curve").onchange = (event) => { state.curve = event.target.value; follow(); };
  const setTime = (share) => {
    state.time = share;
    $("time").value = Math.round(100 * share);
    $("time-shown").textContent = `${Math.round(100 * share)} %`;
    return drawPaths();
  };
  $("time").oninput = (event) => setTime(event.target.value / 100);
  let timer = 0;
  $("play").onclick = () => {
    if (timer) { clearInterval(timer); timer = 0; $("play").textContent = "Play"; return; }
    $("play").textContent = "Stop";
    let share = 0;
    timer = setInterval(() => {
      share = Math.min(1, share + 0.05);
      setTime(share);
      if (share === 1) $("play").onclick();
    }, 250);
  };
  const directions = [...new Set(DATA.landscapes.map((row) => row.direction))];
  state.direction = directions[0];
  options($("pick-direction"), directions, (name) => name, state.direction,
    (name) => { state.direction = name; drawLandscapes(); });
  const parts = { paths: Object.keys(DATA.paths).length, verdicts: DATA.claims.length,
    measures: DATA.comparison.length, landscapes: directions.length, curves: Object.keys(DATA.curves).length };
  for (const [id, count] of Object.entries(parts)) if (!count) {
    $(id).hidden = true;
    document.querySelector(`nav a[href="#${id}"]`).hidden = true;
  }
  const shown = points().filter((p) => p.key !== "robustbench");
  const r = pearson(shown.map((p) => p.x), shown.map((p) => p.y));
  const yes = DATA.claims.filter((claim) => /^(reproduced|holds)/.test(claim.verdict)).length;
  $("summary").textContent = `${shown.length} ways of adversarial training. Pearson's correlation of ${words(state.x)} ` +
    `with ${words(state.y)}: ${withInterval(r, shown.length)}.` +
    (DATA.claims.length ? ` ${yes} of the talk's ${DATA.claims.length} claims hold here.` : "");
  drawFamilies();
  drawClaims();
}
async function drawAll() {
  drawFamilies();
  await drawScatter();
  if (!$("paths").hidden) await drawPaths();
  if (!$("measures").hidden) await draw("comparison", "comparison-chart", DATA.comparison, (spec) => {
    for (const layer of spec.layer) if (layer.encoding.y?.axis) {
      layer.encoding.y.axis.labelLimit = Math.min(300, innerWidth / 2.5);
    }
    return spec;
  });
  if (!$("landscapes").hidden) await drawLandscapes();
  document.body.dataset.ready = "yes";
}
start();
drawAll();
dark.addEventListener("change", drawAll);

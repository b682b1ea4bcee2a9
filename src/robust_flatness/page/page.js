const $ = (id) => document.getElementById(id);
const LAYERS = { ours: DATA.experiment, paper: "printed in the paper" };
const state = { x: "avg_flatness_rloss", y: "test_rloss_pgd", layers: new Set([DATA.isPaper ? "paper" : "ours"]),
  box: null, families: new Set(), curve: "rloss", time: 1, direction: null };
const views = {};
const drawn = new Set(DATA.models.map((model) => model.family));
for (const key of Object.keys(DATA.families)) if (!drawn.has(key)) delete DATA.families[key];
const dark = matchMedia("(prefers-color-scheme: dark)");

const inDark = { "#000000": "#ffffff", "#545454": "#b8b8b8", "#0072B2": "#4ba3dd" };
const shade = (color) => (dark.matches && inDark[color]) || color;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
const number = (value, digits = 3) => (value === undefined ? "–" : value.toFixed(digits));
const words = (name) => (DATA.measures[name] ? DATA.measures[name].words : name);
const title = (name) => words(name) + (DATA.measures[name]?.low ? ` (${DATA.measures[name].low})` : "");

/* Statistics, as scipy computes them; NaN for fewer than three points. */
function pearson(x, y) {
  const n = x.length, mean = (v) => v.reduce((a, b) => a + b, 0) / n, mx = mean(x), my = mean(y);
  let xy = 0, xx = 0, yy = 0;
  for (let i = 0; i < n; i++) { const a = x[i] - mx, b = y[i] - my; xy += a * b; xx += a * a; yy += b * b; }
  return n > 2 && xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : NaN;
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
/* A coefficient of the two axes; with the interval of the experiment's table of correlations if all models count. */
function coefficient(kind, rows, table) {
  const axes = (row) => [state.x, state.y].every((name) => name === row.measure || name === row.against);
  const known = DATA.coefficients.find((row) => row.coefficient === kind && row.measure !== row.against && axes(row));
  const r = { pearson, spearman }[kind](rows.map((p) => p.x), rows.map((p) => p.y));
  const { value, low, high } = (table && known) || { value: Number.isFinite(r) ? r : undefined };
  return number(value, 2) + (low === undefined ? "" : ` [${number(low, 2)}, ${number(high, 2)}]`);
}

/* What is shown and what is selected. */
function points() {
  return DATA.models
    .filter((m) => state.layers.has(m.layer) && m.values[state.x] !== undefined && m.values[state.y] !== undefined)
    .map((m) => ({ variant: m.variant, label: m.label, layer: m.layer, layerWords: LAYERS[m.layer],
      family: DATA.families[m.family].label, key: m.family, settings: m.settings || "as in the paper",
      short: m.short, named: m.named, counts: m.counts, on: !state.families.size || state.families.has(m.family),
      x: m.values[state.x], y: m.values[state.y] }));
}
function chosen(shown) {
  const box = state.box;
  const within = (p) => !box || (p.x >= box.x[0] && p.x <= box.x[1] && p.y >= box.y[0] && p.y <= box.y[1]);
  return shown.filter((p) => within(p) && p.on);
}
const isExperiment = (layer) => layer === (DATA.isPaper ? "paper" : "ours");
const isSelection = () => Boolean(state.box) || state.families.size > 0;

/* Pictures. */
const PALETTE = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#545454"];
const rim = () => (dark.matches ? "#14171b" : "#ffffff");
function look() {
  const ink = dark.matches ? "#e6e8eb" : "#1b1f24", line = dark.matches ? "#3a414a" : "#dfe3e8";
  const axis = { labelColor: ink, titleColor: ink, gridColor: line, domainColor: ink, tickColor: ink,
    titleFontWeight: "normal", titleFontSize: 13, labelFontSize: 12 };
  return { background: "transparent", view: { stroke: line }, axis, text: { color: ink } };
}
/* Matplotlib's markers: Vega's shape, and the path that stands for it in a button; where Vega has none, the path is both. */
const PATHS = { p: "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z", X: "M-0.9,-0.9L0.9,0.9M-0.9,0.9L0.9,-0.9",
  "*": "M0,-1L.22,-.31L.95,-.31L.36,.12L.59,.81L0,.38L-.59,.81L-.36,.12L-.95,-.31L-.22,-.31Z" };
const MARKERS = {
  o: ["circle", "M-.8,0a.8,.8 0 1,0 1.6,0a.8,.8 0 1,0 -1.6,0"], s: ["square", "M-.7,-.7H.7V.7H-.7Z"],
  D: ["diamond", "M0,-1L.8,0L0,1L-.8,0Z"], "^": ["triangle-up", "M0,-.9L.9,.7H-.9Z"],
  v: ["triangle-down", "M0,.9L.9,-.7H-.9Z"], P: ["cross", "M-.3,-1H.3V-.3H1V.3H.3V1H-.3V.3H-1V-.3H-.3Z"],
};
const marker = (look) => MARKERS[look.marker] ?? Array(2).fill(PATHS[look.marker] ?? PATHS.X);
/* A legend in words, which wraps where a chart's own would be cut. */
function legend(target, entries) {
  $(target).replaceChildren(...entries.map(({ label, color, dash = "", mark = `M0,5H22` }) => {
    const entry = element("span", {});
    entry.innerHTML = `<svg viewBox="0 0 22 10" aria-hidden="true"><path d="${mark}" fill="none" stroke="${color}"
      stroke-width="2" stroke-dasharray="${dash}"/></svg>`;
    entry.append(label);
    return entry;
  }));
}
/* Names beside points where there is room, clear of `marks`: each row that is wanted gets a place (lx, ly) in the
   chart's units. */
function name(view, rows, x, y, wanted, marks = rows) {
  const sx = view.scale("x"), sy = view.scale("y"), right = sx.range()[1], bottom = sy.range()[0];
  const taken = marks.map((row) => [sx(row[x]) - 5, sy(row[y]) - 5, sx(row[x]) + 5, sy(row[y]) + 5]);
  for (const row of rows) { delete row.lx; delete row.ly; }
  for (const row of wanted) {
    const half = 2.9 * row.short.length + 2, px = sx(row[x]), py = sy(row[y]);
    for (const [dx, dy] of [[half + 8, 0], [-half - 8, 0], [0, -13], [0, 13], [half, -13], [half, 13], [-half, -13], [-half, 13]]) {
      const box = [px + dx - half, py + dy - 6, px + dx + half, py + dy + 6];
      if (box[0] < 0 || box[1] < 0 || box[2] > right || box[3] > bottom) continue;
      if (taken.some((t) => t[0] < box[2] && t[2] > box[0] && t[1] < box[3] && t[3] > box[1])) continue;
      taken.push(box);
      row.lx = sx.invert(px + dx);
      row.ly = sy.invert(py + dy);
      break;
    }
  }
  return view.data("rows", rows).runAsync();
}

/* Parts of charts in Vega-Lite: fields of numbers and names, colours of the data, dashes ("long" and "dotted" for lines
   that lie on others), tooltips from field: [title, format of a number]. */
const q = (field, rest) => ({ field, type: "quantitative", ...rest });
const n = (field, rest) => ({ field, type: "nominal", ...rest });
const COLOR = n("color", { scale: null });
const DASHES = { solid: [1, 0], dashed: [4, 3], long: [8, 5], dotted: [2, 4] };
const DASH = n("dash", { legend: null, scale: { domain: Object.keys(DASHES), range: Object.values(DASHES) } });
const tooltip = (titles) => Object.entries(titles).map(([field, [title, format]]) =>
  (format ? q(field, { title, format }) : n(field, { title })));
/* Names where `name` has placed them, over a rim in the page's colour. */
function names(x, y) {
  const encoding = { x: q("lx", { scale: x.scale }), y: q("ly", { scale: y.scale }), text: n("short") };
  const behind = { color: { value: "transparent" }, stroke: { value: rim() } };
  const transform = [{ filter: "isValid(datum.lx)" }], mark = { type: "text", fontSize: 11 };
  return [{ transform, mark: { ...mark, strokeWidth: 3, strokeOpacity: 0.8 }, encoding: { ...encoding, ...behind } },
    { transform, mark, encoding }];
}
async function draw(target, rows, spec) {
  const chart = { width: "container", data: { name: "rows", values: rows }, ...spec };
  const tooltip = { theme: dark.matches ? "dark" : "light" };
  const options = { mode: "vega-lite", actions: false, renderer: "svg", config: look(), tooltip };
  const made = await vegaEmbed($(target), chart, options);
  if (views[target]) views[target].finalize();
  views[target] = made.view;
  return made.view;
}
async function drawScatter() {
  state.box = null;
  const shown = points(), looks = Object.values(DATA.families);
  const axis = (name) => {
    const values = shown.map((p) => p[name]), domain = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
    return q(name, { title: title(state[name]), scale: { domain, nice: true, zero: false } });
  };
  const family = (range) => n("family", { legend: null, scale: { domain: looks.map((look) => look.label), range } });
  const x = axis("x"), y = axis("y"), color = family(looks.map((look) => shade(look.color)));
  const dots = {
    params: [{ name: "brush", select: "interval" }],
    mark: { type: "point", size: 70, strokeWidth: 1.5 },
    encoding: { x, y, color, shape: family(looks.map((look) => marker(look)[0])), description: n("label"),
      fill: { condition: { test: "datum.layer == 'ours'", ...color }, value: "transparent" },
      opacity: { condition: { test: { and: [{ param: "brush" }, "datum.on"] }, value: 0.95 }, value: 0.15 },
      tooltip: tooltip({ label: ["variant"], layerWords: ["numbers"], x: [words(state.x), ".3f"],
        y: [words(state.y), ".3f"], settings: ["applied"] }) },
  };
  const view = await draw("scatter", shown, { height: 430, layer: [dots, ...names(x, y)] });
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
  const shown = all.slice(0, PALETTE.length), color = (slug) => shade(PALETTE[shown.indexOf(slug)]);
  const rows = shown.flatMap((slug) => DATA.curves[slug].flatMap((row) => ["test", "train"]
    .filter((split) => row[`${split}_${state.curve}`] !== undefined)
    .map((split) => ({ variant: slug, label: DATA.labels[slug], split, epoch: row.epoch, color: color(slug),
      dash: split === "test" ? "solid" : "dashed", value: row[`${split}_${state.curve}`] }))));
  const late = rows.filter((row) => row.epoch > 0.1).map((row) => row.value);
  const range = late.length ? [Math.min(...late), Math.max(...late)] : [0, 1];
  legend("curves-legend", shown.map((slug) => ({ label: DATA.labels[slug], color: color(slug) })));
  $("curves-chart").hidden = rows.length === 0;
  $("curves-note").textContent = rows.length === 0 ? "No training curves for this selection."
    : `${isSelection() ? "" : "Nothing is selected: the baseline and three methods. "}` +
      `${all.length > shown.length ? `The first ${shown.length} of ${all.length} selected. ` : ""}` +
      "Solid: on test images; dashed: on training images. The first tenth of the training may lie beyond the axis.";
  if (rows.length === 0) return null;
  const share = "share of the training", scale = { domain: range, clamp: true, nice: true, zero: false };
  const x = q("epoch", { title: share, scale: { domain: [0, 1] }, axis: { tickCount: 5 } });
  const y = q("value", { title: state.curve === "rloss" ? "RLoss" : "RErr (%)", scale });
  const onTest = tooltip({ label: ["variant"], epoch: [share, ".2f"], value: ["on test images", ".3f"] });
  return draw("curves-chart", rows, { height: 300, encoding: { x, y, color: COLOR, strokeDash: DASH }, layer: [
    { mark: { type: "line", strokeWidth: 2 }, encoding: { detail: [n("variant"), n("split")] } },
    { transform: [{ filter: "datum.split == 'test'" }], mark: { type: "point", filled: true, size: 25 },
      encoding: { tooltip: onTest } },
  ] });
}
/* The paths up to the chosen share of the training: those of the selection, or all. */
function path() {
  const selected = new Set(chosen(points()).map((p) => p.variant).filter((slug) => DATA.paths[slug]));
  return Object.keys(DATA.paths).filter((slug) => !selected.size || selected.has(slug)).flatMap((slug) => {
    const until = DATA.paths[slug].slice(1).filter((row) => row.epoch <= state.time + 1e-9);
    const family = DATA.families[DATA.models.find((m) => m.variant === slug)?.family];
    return until.map((row, i) => ({ ...row, variant: slug, label: DATA.labels[slug], short: DATA.labels[slug],
      color: family ? shade(family.color) : "#808080", latest: i === until.length - 1 }));
  });
}
async function drawPaths() {
  const every = Object.values(DATA.paths).flat().filter((row) => row.epoch > 0.1);
  const axis = (name, title) => {
    const values = every.map((row) => row[name]), low = Math.min(...values), high = Math.max(...values);
    const domain = [low - 0.03 * (high - low), high + 0.03 * (high - low)];
    return q(name, { title, scale: { domain, clamp: true, nice: false, zero: false } });
  };
  const x = axis("flatness", "average-case flatness in RLoss (lower is flatter)");
  const y = axis("rloss", "test RLoss (lower is more robust)");
  const encoding = { x, y, color: COLOR, tooltip: tooltip({ label: ["variant"], epoch: ["share of the training", ".2f"],
    rloss: ["test RLoss", ".3f"], flatness: ["flatness", ".3f"] }) };
  await draw("paths-chart", [], { height: 420, layer: [
    { mark: { type: "line", strokeWidth: 1.2, opacity: 0.45 },
      encoding: { ...encoding, order: q("epoch"), detail: n("variant") } },
    { mark: { type: "point", filled: true, size: 18, opacity: 0.45 }, encoding },
    { transform: [{ filter: "datum.latest" }], mark: { type: "point", filled: true, size: 110, opacity: 1 }, encoding },
    ...names(x, y),
  ] });
  return movePaths();
}
function movePaths() {
  if (!views["paths-chart"]) return null;
  const rows = path();
  const latest = rows.filter((row) => row.latest);
  return name(views["paths-chart"], rows, "flatness", "rloss", latest, latest);
}
function drawLandscapes() {
  const slugs = [...new Set(DATA.landscapes.map((row) => row.variant))];
  const scaled = slugs.filter((slug) => slug.startsWith("at-scaled"));
  const dash = (slug) => ["solid", "long", "dotted"][scaled.indexOf(slug) + 1];
  const color = (slug) => shade(PALETTE[slugs.indexOf(slug) % PALETTE.length]);
  const rows = DATA.landscapes.filter((row) => row.direction === state.direction)
    .map((row) => ({ ...row, label: DATA.labels[row.variant], color: color(row.variant), dash: dash(row.variant) }));
  legend("landscapes-legend", slugs.map((slug) => ({ label: DATA.labels[slug], color: color(slug),
    dash: DASHES[dash(slug)].join(" ") })));
  return draw("landscapes-chart", rows, { height: 280, mark: { type: "line", strokeWidth: 1.8 }, encoding: {
    x: q("s", { title: "step s along the direction", axis: { tickCount: 6 } }),
    y: q("rloss", { title: "RLoss", scale: { zero: false } }), color: COLOR, strokeDash: DASH, detail: n("variant"),
    tooltip: tooltip({ label: ["variant"], s: ["s", ".2f"], rloss: ["RLoss", ".3f"] }) } });
}
/* A row per measure: on the robust loss above, on the clean loss below it and hollow. */
async function drawComparison() {
  const ink = shade("#000000");
  const kinds = { "the talk's": [shade("#0072B2"), "flatness, as in the talk"], sharpness: [ink, "other sharpness"],
    control: ["#E69F00", "control: no sharpness"], "sharpness on test examples": [ink] };
  const wide = Math.floor(Math.max(16, Math.min(36, innerWidth / 16)));
  const wrap = (text) => text.replace(new RegExp(`(.{1,${wide}})( |$)`, "g"), "$1\n").trim();
  const circle = "M11,1a4,4 0 1,0 .01,0";
  legend("comparison-legend", Object.values(kinds).slice(0, 3).map(([color, label]) => ({ label, color, mark: circle })));
  const axis = { labelExpr: "split(datum.label, '\\n')", labelLimit: 0, offset: 2, grid: true };
  const rho = (name, rest) => q(name, { scale: { domain: [-1, 1] }, axis: { tickCount: 5, orient: "top" }, ...rest });
  const encoding = { y: n("name", { sort: null, title: "", axis }), color: COLOR,
    yOffset: n("clean", { scale: { domain: [false, true], paddingOuter: 0.4 } }),
    tooltip: tooltip({ label: ["measure"], value: ["Spearman", ".2f"], low: ["95 % from", ".2f"], high: ["to", ".2f"] }) };
  const spec = { height: { step: innerWidth < 700 ? 14 : 9 }, layer: [
    { data: { values: [{}] }, mark: { type: "rule", strokeDash: [2, 2], color: "#999" }, encoding: { x: { datum: 0 } } },
    { mark: { type: "rule", strokeWidth: 1.5, opacity: 0.6 },
      encoding: { ...encoding, x: rho("low", { title: "Spearman's ρ with test RLoss" }), x2: { field: "high" } } },
    { mark: { type: "point", size: 45, strokeWidth: 1.5, opacity: 1 },
      encoding: { ...encoding, x: rho("value"), fill: n("fill", { scale: null }) } },
  ] };
  for (const [index, [split, measures]] of Object.entries(DATA.comparison).entries()) {
    $(`comparison-title-${index}`).textContent = `Measured ${split}`;
    await draw(`comparison-${index}`, measures.map((row) => ({ ...row, color: kinds[row.group][0], name: wrap(row.name),
      fill: row.clean ? rim() : kinds[row.group][0], label: row.name + (row.clean ? ", clean loss" : "") })), spec);
  }
}

/* Tables. */
function follow() {
  const shown = points(), selected = chosen(shown);
  const body = $("coefficients").tBodies[0];
  body.replaceChildren(...[...state.layers].map((layer) => {
    const rows = selected.filter((p) => p.layer === layer && p.counts);
    return element("tr", {}, element("td", { textContent: LAYERS[layer] }),
      element("td", { textContent: rows.length }),
      ...["pearson", "spearman"].map((kind) =>
        element("td", { textContent: coefficient(kind, rows, isExperiment(layer) && !isSelection()) })));
  }));
  const table = $("selection");
  table.tHead.replaceChildren(element("tr", {}, ...["model", words(state.x), words(state.y)].map((text) =>
    element("th", { textContent: text, scope: "col" }))));
  table.tBodies[0].replaceChildren(...[...selected].sort((a, b) => a.y - b.y).map((p) =>
    element("tr", { title: p.settings }, element("td", { textContent: p.label + (p.counts ? "" : " (not counted)") +
      (p.layer === "paper" && state.layers.size > 1 ? " (printed)" : "") }), element("td", { textContent: number(p.x) }),
    element("td", { textContent: number(p.y) }))));
  const few = isSelection() && selected.length <= 25;
  const wanted = few ? selected : shown.filter((p) => p.named && (p.layer === "ours" || state.layers.size === 1));
  name(views.scatter, shown, "x", "y", [...wanted].sort((a, b) => (b.variant === "at") - (a.variant === "at")));
  drawCurves(selected.filter((p) => isExperiment(p.layer)));
  movePaths();
}
function drawFamilies() {
  $("families").replaceChildren(...Object.entries(DATA.families).map(([key, family]) => {
    const button = element("button", { type: "button", onclick: () => {
      if (!state.families.delete(key)) state.families.add(key);
      drawFamilies(); follow();
    } });
    button.setAttribute("aria-pressed", state.families.has(key));
    button.innerHTML = `<svg viewBox="-1.1 -1.1 2.2 2.2" aria-hidden="true"><path d="${marker(family)[1]}"
      fill="${shade(family.color)}" stroke="${shade(family.color)}" stroke-width=".2"/></svg>`;
    button.append(family.label);
    return button;
  }));
}
function drawClaims() {
  const kind = (verdict) => (/^(reproduced|holds)/.test(verdict) ? "yes" : /not testable|inconclusive/.test(verdict) ? "open" : "no");
  const listed = (target, claims) => $(target).replaceChildren(...claims.map((claim) => {
    const entry = element("details", {}), head = element("summary", {});
    head.append(element("span", { className: `verdict ${kind(claim.verdict)}`, textContent: claim.verdict }),
      ` · ${claim.statement}`);
    const tests = claim.tests.map((test) => {
      const interval = test.low === undefined ? "" : ` [${number(test.low, 2)}, ${number(test.high, 2)}]`;
      const value = test.value === undefined ? test.note ?? "" : `${number(test.value, 2)}${interval}`;
      const printed = test.published === undefined ? "" : `; printed numbers ${number(test.published, 2)}`;
      return element("li", { textContent: `${test.statistic}: ${value}${printed} – ${test.outcome}` +
        (test.decides ? "" : " (beside it)") });
    });
    const printed = claim.published ? ` ${claim.published[0].toUpperCase()}${claim.published.slice(1)}.` : "";
    entry.append(head, element("p", { textContent: `Rule: ${claim.rule}${printed}` }), element("ul", {}, ...tests));
    const { section, x, y } = claim.place, measured = (name) => name in DATA.measures;
    const up = y === "test_rerr_aa" && !measured(y) ? "test_rerr_pgd" : y;
    if (section || (measured(x) && measured(up))) {
      const link = element("a", { href: `#${section ?? "models"}`, textContent: "See it in the plot" });
      link.onclick = () => { if (!section) { pick("x", x); pick("y", up); drawScatter(); } };
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
    return movePaths();
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
    measures: Object.keys(DATA.comparison).length, landscapes: directions.length, curves: Object.keys(DATA.curves).length };
  for (const [id, count] of Object.entries(parts)) if (!count) {
    $(id).hidden = true;
    document.querySelector(`nav a[href="#${id}"]`).hidden = true;
  }
  const counted = points().filter((p) => p.counts);
  const yes = DATA.claims.filter((claim) => /^(reproduced|holds)/.test(claim.verdict)).length;
  $("summary").textContent = `${counted.length} ways of adversarial training compared. Rank correlation (Spearman) of ` +
    `${words(state.x)} with ${words(state.y)}: ${coefficient("spearman", counted, true)}.` +
    (DATA.claims.length ? ` ${yes} of the talk's ${DATA.claims.length} claims are reproduced here.` : "");
  drawClaims();
}
async function drawAll() {
  drawFamilies();
  await drawScatter();
  if (!$("paths").hidden) await drawPaths();
  if (!$("measures").hidden) await drawComparison();
  if (!$("landscapes").hidden) await drawLandscapes();
  document.body.dataset.ready = "yes";
}
start();
drawAll();
dark.addEventListener("change", drawAll);

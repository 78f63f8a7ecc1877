// Line charts as SVG: drawn at the size they have, read by pointer, by arrow keys, or as text.

import { h, s, put } from "./dom.js";

const LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 26;

/**
 * @param label what the picture is of
 * @param format how a value reads
 * @returns { node, update(series) }; a series is { name, look, points: [[x, y], …] in order of x }
 */
export function chart({ label, format, height = 220, empty = "Nothing measured yet" }) {
  const picture = s("svg", { role: "img", tabindex: "0", class: "chart", height });
  const legend = h("div", { class: "legend", "aria-hidden": "true" });
  const readout = h("p", { class: "readout", role: "status" });
  const nothing = h("p", { class: "chart-empty soft" }, empty);
  const node = h("figure", { class: "figure" }, h("figcaption", {}, h("h3", {}, label), legend), picture, nothing, readout);
  let series = [], scale = null, at = null, asked = false;

  const redraw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
  new ResizeObserver(redraw).observe(node);

  function draw() {
    const shown = series.filter((one) => one.points.length);
    nothing.hidden = shown.length > 0;
    picture.toggleAttribute("hidden", !shown.length);
    const width = node.clientWidth;
    if (!shown.length || !width) return;
    scale = scaleOf(shown, width, height);
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    picture.setAttribute("aria-label", `${label}. ${summary(shown, format)}. Arrow keys read the values.`);
    put(picture, axes(scale, width, height, format), shown.map((one) => line(one, scale, width)));
    put(legend, shown.map((one) => h("span", { class: `key ${one.look}` }, one.name)));
    point();
  }

  // The cursor: what the curves say at one x.
  const mark = s("line", { class: "cursor", y1: TOP, y2: height - BOTTOM });
  function point() {
    if (at === null || !scale) return void mark.remove();
    const values = series.map((one) => [one, near(one.points, at)]).filter(([, found]) => found);
    if (!values.length) return;
    at = values[0][1][0];
    const x = scale.x(at);
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
    picture.append(mark);
    readout.textContent = `step ${at}: ${values.map(([one, [step, y]]) => `${one.name} ${format(y)}${step === at ? "" : ` (step ${step})`}`).join(" · ")}`;
  }
  const leave = () => {
    at = null;
    readout.textContent = "";
    mark.remove();
  };
  picture.addEventListener("pointermove", (event) => {
    if (!scale) return;
    at = scale.back(event.clientX - picture.getBoundingClientRect().left);
    point();
  });
  picture.addEventListener("pointerleave", leave);
  picture.addEventListener("blur", leave);
  picture.addEventListener("keydown", (event) => {
    const steps = (series.find((one) => one.points.length)?.points || []).map(([x]) => x);
    if (!steps.length) return;
    const here = at === null ? steps.length : steps.findIndex((x) => x >= at);
    const far = Math.max(1, Math.round(steps.length / 20));
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, PageUp: here - far, PageDown: here + far, Home: 0, End: steps.length - 1 }[event.key];
    if (event.key === "Escape") return leave();
    if (to === undefined) return;
    event.preventDefault();
    at = steps[Math.max(0, Math.min(steps.length - 1, to))];
    point();
  });

  return {
    node,
    update(found) {
      series = found;
      redraw();
    },
  };
}

function scaleOf(shown, width, height) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const { points } of shown) {
    x0 = Math.min(x0, points[0][0]);
    x1 = Math.max(x1, points[points.length - 1][0]);
    for (const [, y] of points) {
      if (y < y0) y0 = y;
      if (y > y1) y1 = y;
    }
  }
  y0 = Math.min(0, y0);
  const ticks = nice(y0, y1 > y0 ? y1 : y0 + 1, Math.max(2, Math.round(height / 55)), true);
  y1 = ticks[ticks.length - 1];
  const wide = width - LEFT - RIGHT, high = height - TOP - BOTTOM, range = x1 - x0 || 1;
  return {
    x0, x1, ticks,
    x: (value) => LEFT + ((value - x0) / range) * wide,
    y: (value) => TOP + (1 - (value - y0) / (y1 - y0)) * high,
    back: (pixel) => x0 + ((pixel - LEFT) / wide) * range,
  };
}

function axes(scale, width, height, format) {
  const across = scale.ticks.map((value) => [
    s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: scale.y(value), y2: scale.y(value) }),
    s("text", { x: LEFT - 8, y: scale.y(value), "text-anchor": "end", "dominant-baseline": "middle" }, format(value, true)),
  ]);
  const steps = nice(scale.x0, scale.x1, Math.max(2, Math.floor(width / 110))).filter((x) => Number.isInteger(x) && x <= scale.x1);
  const down = steps.map((value) => s("text", { x: scale.x(value), y: height - 8, "text-anchor": value === scale.x1 ? "end" : "middle" }, `${value}`));
  const unit = s("text", { x: LEFT - 8, y: height - 8, "text-anchor": "end" }, "step");
  return s("g", { "aria-hidden": "true" }, across, down, unit);
}

/** One series: at most two points for each pixel, so that a long run stays quick. */
function line(one, scale, width) {
  const places = thin(one.points, width).map(([x, y]) => [scale.x(x).toFixed(1), scale.y(y).toFixed(1)]);
  const drawn = s("polyline", { class: `line ${one.look}`, points: places.map((place) => place.join(",")).join(" ") });
  const dots = one.dots || places.length === 1 ? places.map(([cx, cy]) => s("circle", { class: `dot ${one.look}`, cx, cy, r: 3 })) : [];
  return s("g", {}, drawn, dots);
}

function thin(points, width) {
  const each = Math.ceil(points.length / width);
  if (each < 2) return points;
  const kept = [];
  for (let start = 0; start < points.length; start += each) {
    const some = points.slice(start, start + each);
    const low = some.reduce((a, b) => (b[1] < a[1] ? b : a)), top = some.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] <= top[0] ? [low, top] : [top, low]));
  }
  return kept;
}

/** Round values from `low` to `high`; `beyond`: to the first that is not below it. */
function nice(low, high, count, beyond = false) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find((one) => one * power >= rough * 0.999) || 10);
  const found = [];
  const end = beyond ? Math.ceil(high / step - 1e-9) : Math.floor(high / step + 1e-9);
  for (let n = Math.ceil(low / step - 1e-9); n <= end; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

function near(points, x) {
  let best = null;
  for (const point of points) if (!best || Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
  return best;
}

function summary(shown, format) {
  return shown.map(({ name, points }) => {
    const first = points[0], last = points[points.length - 1];
    return points.length === 1
      ? `${name}: ${format(first[1])} at step ${first[0]}`
      : `${name}: from ${format(first[1])} at step ${first[0]} to ${format(last[1])} at step ${last[0]}`;
  }).join("; ");
}

/** A mean that forgets, without the lag of its start. */
export function smooth(points) {
  const keep = Math.min(0.9, 1 - 8 / Math.max(points.length, 10));
  let sum = 0, weight = 0;
  return points.map(([x, y]) => {
    sum = keep * sum + (1 - keep) * y;
    weight = keep * weight + (1 - keep);
    return [x, sum / weight];
  });
}

// Curves and axes as SVG, which the style sheet colours and a screen reader can name.

// Round numbers, 1, 2 or 5 times a power of ten apart, between low and high.
function ticks(low, high, most = 6) {
  let step = 10 ** Math.floor(Math.log10(high - low));
  step = [step / 5, step / 2, step, 2 * step].find(s => (high - low) / s <= most) ?? 5 * step;
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function extent(values, share = 0.06) {
  const known = values.filter(Number.isFinite);
  const low = Math.min(...known), high = Math.max(...known);
  const pad = Math.max(share * (high - low), 1e-3 * Math.max(Math.abs(low), Math.abs(high)), 1e-6);
  return [low - pad, high + pad];
}

function band(item) {
  if (!item.goal) return null;
  const [low, high] = item.goal;
  return low === high ? [low - data.threshold, high + data.threshold] : [low, high];
}

// The prediction at each iteration, with the target's band; the point is the saved image.
function curveChart(item, width, height) {
  const known = item.curve.map((y, i) => [i, y]).filter(([, y]) => y !== null);
  if (!known.length) return make("p", {class: "note"}, "No prediction of the search is known.");
  const goal = band(item);
  const saved = item.after ?? known.at(-1)[1];
  const [low, high] = extent([...known.map(([, y]) => y), saved, ...(goal ?? [])]);
  const [left, right, top, bottom] = [52, width - 14, 8, height - 34];
  const last = Math.max(item.curve.length - 1, 1);
  const px = i => left + (right - left) * (item.curve.length > 1 ? i / last : 0.5);
  const py = y => bottom - (bottom - top) * (y - low) / (high - low);
  const chart = svg("svg", {
    class: "curve", viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `Prediction from ${inUnit(known[0][1])} to ${inUnit(known.at(-1)[1])} in `
      + `${item.curve.length} iterations, target ${inUnit(item.target)}`,
  });
  if (goal) {
    chart.append(svg("rect", {class: "band", x: left, width: right - left,
      y: py(goal[1]), height: Math.max(py(goal[0]) - py(goal[1]), 1)}));
  }
  for (const y of ticks(low, high, 4)) {
    chart.append(svg("line", {class: "grid", x1: left, x2: right, y1: py(y), y2: py(y)}),
      svg("text", {class: "y", x: left - 8, y: py(y) + 4}, compact(y)));
  }
  const whole = item.curve.length > 1 ? ticks(1, item.curve.length).filter(Number.isInteger) : [1];
  for (const i of whole) chart.append(svg("text", {x: px(i - 1), y: bottom + 16}, String(i)));
  chart.append(
    svg("polyline", {points: known.map(([i, y]) => `${px(i)},${py(y)}`).join(" ")}),
    svg("circle", {class: item.success === false ? "after failed" : "after",
      cx: px(known.at(-1)[0]), cy: py(saved), r: 4}),
    svg("text", {x: (left + right) / 2, y: height - 3}, "iteration"));
  return chart;
}

// Pictures along the axis of predictions: each hangs from its place, and none covers another.
function stripChart(items, width, current) {
  const size = Math.min(88, Math.max(72, width / (items.length + 1) - 8));
  const step = size + 8, margin = step / 2;
  width = Math.max(width, step * items.length);
  const [low, high] = extent(items.map(({y}) => y));
  const px = y => margin + (width - 2 * margin) * (y - low) / (high - low);
  const places = items.map(({y}) => px(y));
  for (let i = 1; i < places.length; i++) places[i] = Math.max(places[i], places[i - 1] + step);
  let most = width - margin;
  for (let i = places.length - 1; i >= 0; i--) most = (places[i] = Math.min(places[i], most)) - step;
  const axis = 20, top = 46, height = top + size + 20 + 14 * Math.max(...items.map(({lines}) => lines.length));
  const chart = svg("svg", {viewBox: `0 0 ${width} ${height}`, width, height});
  chart.append(svg("line", {class: "axis", x1: 0, x2: width, y1: axis, y2: axis}));
  for (const y of ticks(low, high, Math.max(2, width / 90))) {
    chart.append(svg("line", {class: "axis", x1: px(y), x2: px(y), y1: axis - 4, y2: axis}),
      svg("text", {x: px(y), y: axis - 8}, compact(y)));
  }
  items.forEach(({y, image, lines, index}, i) => {
    const x = places[i] - size / 2;
    const part = svg("g", index === null ? {} : {
      role: "button", tabindex: 0, "data-case": index, "aria-label": `${lines.join(", ")}, predicted ${inUnit(y)}`,
      "aria-current": index === current ? "true" : null});
    part.append(svg("path", {class: "leader", d: `M${px(y)},${axis} V${axis + 8} L${places[i]},${top - 4}`}));
    if (image !== null && image !== undefined) {
      const {source, sharp} = data.images[image];
      part.append(svg("image", {href: source, x, y: top, width: size, height: size, class: sharp ? "sharp" : null}));
    }
    part.append(svg("rect", {class: "frame", x, y: top, width: size, height: size}),
      svg("text", {x: places[i], y: top + size + 15}, number(y)),
      ...lines.map((line, k) => svg("text", {x: places[i], y: top + size + 29 + 14 * k}, line)));
    chart.append(part);
  });
  return chart;
}

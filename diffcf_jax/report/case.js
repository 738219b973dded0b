// The case: one result large, with its neighbours in the order of the table.
const viewer = byId("viewer");
let current = null;  // its number in `cases`
let order = cases.map((_, i) => i);  // of the table, set by cases.js
let opener = null;

function facts(item) {
  const miss = item.distance === null ? "–" : inUnit(item.distance);
  const rows = [
    ["Target", inUnit(item.target)], ["Before", inUnit(item.before)],
    ["Reconstruction", inUnit(item.reconstruction)], ["After", inUnit(item.after)],
    ["Distance", miss], ["Success", outcome(item)],
    ...(item.true === null ? [] : [["True value", inUnit(item.true)]]),
    ...data.readings.map(name => {
      const {before = null, after = null} = item.readings[name] ?? {};
      return [`${name} reads`, `${number(before)} → ${inUnit(after)}`];
    }),
    ["Iterations", String(item.iterations)],
    ...data.groups.map(name => [name, String(item.groups[name] ?? "–")]),
  ];
  return rows.map(pair);
}

function pair([term, value]) {
  return make("div", {}, make("dt", {}, term), make("dd", {}, value));
}

// The input and all results of the image, in the order of their predictions.
function strip(item) {
  const found = cases.map((other, index) => ({other, index})).filter(
    ({other}) => other.name === item.name && other.after !== null);
  const items = found.map(({other, index}) => ({
    y: other.after, image: other.pictures.cf, index,
    lines: [`target ${number(other.target)}`, ...(other.answer > 1 ? [`answer ${other.answer}`] : [])]}));
  if (item.before !== null) {
    items.push({y: item.before, image: item.pictures.input, lines: ["input"], index: null});
  }
  if (found.length < 2 && item.reconstruction !== null) {
    const image = item.pictures.reconstruction;
    items.push({y: item.reconstruction, image, lines: ["reconstruction"], index: null});
  }
  return items.sort((a, b) => a.y - b.y);
}

function show(index, push = true) {
  const item = cases[index];
  if (!item) return;
  current = index;
  if (!viewer.open) {
    opener = document.activeElement;
    viewer.showModal();
  }
  byId("viewer-title").textContent = item.id;
  byId("position").textContent = order.includes(index)
    ? `${order.indexOf(index) + 1} of ${order.length}` : "not in the filtered table";
  const goal = item.goal ? `target ${inUnit(item.target)}` : `as far as ${item.target} goes`;
  byId("told").textContent = `Predicted ${number(item.before)} before and ${inUnit(item.after)} after, `
    + `${goal}${item.success === null ? "" : `, ${outcome(item)}`}. ${item.words}`
    + (item.reason ? ` Reason: ${item.reason}` : "");
  compare(item);
  const heat = document.querySelector(".heat");
  const under = picture(item.pictures.input, "", true);
  const change = picture(item.pictures.heatmap, `signed change of ${item.id}`, true);
  const {mask = null} = item.pictures;
  heat.replaceChildren(under, change, ...(mask === null ? [] : [picture(mask, "mask", true)]));
  under.classList.add("under");
  heat.children[1].classList.add("layer");
  heat.children[2]?.classList.add("layer", "mask");
  byId("with-mask").hidden = mask === null;
  document.querySelector(".facts dl").replaceChildren(...facts(item));
  const measured = Object.entries(item.metrics);
  byId("measured").hidden = !measured.length;
  byId("measured").lastElementChild.replaceChildren(...measured.map(([k, v]) => pair([k, compact(v)])));
  const items = strip(item), several = items.filter(({index}) => index !== null).length > 1;
  byId("strip-title").textContent = several
    ? "This image along the prediction" : "From the input to the counterfactual";
  draw();
  showVerdict();
  if (push) history.replaceState(null, "", `#${encodeURIComponent(item.id)}`);
}

// What depends on the width of the window.
function draw() {
  if (current === null) return;
  const item = cases[current], width = document.querySelector(".plot").clientWidth || 600;
  document.querySelector(".plot").replaceChildren(curveChart(item, width, 190));
  const items = strip(item);
  document.querySelector(".strip").replaceChildren(
    ...(items.length ? [stripChart(items, width, current)] : ["No prediction is known."]));
}

function step(by) {
  const place = order.indexOf(current);
  const next = order[place < 0 ? 0 : place + by];
  if (next !== undefined) show(next);
}

function follow() {
  let id = location.hash.slice(1);
  try {
    id = decodeURIComponent(id);
  } catch {}  // no escape
  if (!id) return;
  const exact = cases.findIndex(item => item.id === id);
  const index = exact < 0 ? cases.findIndex(item => item.name === id) : exact;
  if (index >= 0) show(index, false);
}

viewer.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (event.target === viewer || button?.hasAttribute("data-close")) viewer.close();
  else if (button?.dataset.step) step(Number(button.dataset.step));
});
viewer.addEventListener("keydown", event => {
  const typing = event.target.matches?.("input[type=range], input[type=radio]");
  if (!typing && event.key === "ArrowLeft") step(-1);
  if (!typing && event.key === "ArrowRight") step(1);
  if ((event.key === "Enter" || event.key === " ") && event.target.matches?.("g[data-case]")) {
    event.preventDefault();
    show(Number(event.target.dataset.case));
  }
});
viewer.addEventListener("close", () => {
  history.replaceState(null, "", "#");
  current = null;
  opener?.focus?.();
});
byId("darker").textContent = `darker −${data.scale.toPrecision(2)}`;
byId("brighter").textContent = `+${data.scale.toPrecision(2)} brighter`;
for (const id of ["over", "mask"]) {
  const apply = () => document.querySelector(".heat").classList.toggle(`with-${id}`, byId(id).checked);
  byId(id).addEventListener("change", apply);
  apply();
}
byId("against").addEventListener("change", () => compare(cases[current]));
document.addEventListener("click", event => {
  const target = event.target.closest("[data-case]");
  if (target) show(Number(target.dataset.case));
});
addEventListener("hashchange", follow);
addEventListener("resize", draw);

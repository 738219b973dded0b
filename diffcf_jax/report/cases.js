// The table of all cases: sorted, filtered, and filled as the reader scrolls.
const gallery = document.querySelector(".gallery");
const body = gallery.tBodies[0];
const CHUNK = 40;
const WIDTHS = {name: 112, picture: 96, number: 66, success: 110, text: 76};  // least ones
const unit = data.unit ? ` (${data.unit})` : "";

const columns = [
  {label: "Image", kind: "name", value: item => item.id, cell: nameCell},
  {label: "Input", kind: "picture", value: item => item.before, cell: pictureCell("input", "before")},
  {label: "Counterfactual", kind: "picture", value: item => item.after, cell: pictureCell("cf", "after")},
  {label: "Change", kind: "picture", value: item => item.change, cell: pictureCell("heatmap", "change")},
  {label: `Target${unit}`, kind: "number", value: item => item.target, cell: item => number(item.target)},
  {label: `Before${unit}`, kind: "number", value: item => item.before, cell: item => number(item.before)},
  {label: `After${unit}`, kind: "number", value: item => item.after, cell: item => number(item.after)},
  {label: `Distance${unit}`, kind: "number", value: item => item.distance, cell: item => number(item.distance)},
  {label: "Success", kind: "success", value: item => item.success, cell: successCell},
  {label: "Iterations", kind: "number", value: item => item.iterations, cell: item => String(item.iterations)},
  {label: "Changed area", kind: "number", value: item => item.area,
    cell: item => item.area === null ? "–" : `${(100 * item.area).toFixed(1)}%`},
  ...data.readings.map(name => ({label: name, kind: "number",
    value: item => item.readings[name]?.after ?? null, cell: item => number(item.readings[name]?.after)})),
  ...data.groups.map(name => ({label: name, kind: "text",
    value: item => item.groups[name] ?? null, cell: item => String(item.groups[name] ?? "–")})),
  {label: "Verdict", kind: "text", value: item => verdicts[item.id] ?? null,
    cell: item => LABELS[verdicts[item.id]] ?? "–"},
  {label: "Reconstruction", kind: "picture", hidden: true, value: item => item.reconstruction,
    cell: pictureCell("reconstruction", "reconstruction")},
  {label: "Seconds", kind: "number", hidden: true, value: item => item.seconds, cell: item => number(item.seconds, 1)},
  ...data.metrics.map(name => ({label: name, kind: "number", hidden: true,
    value: item => item.metrics[name] ?? null, cell: item => compact(item.metrics[name])})),
];
let sorted = null;  // the column, and whether it descends
let descending = false;
let filled = 0;

function nameCell(item) {
  const parts = [make("button", {type: "button", class: "open"}, item.name)];
  if (item.answer > 1) parts.push(make("small", {}, `answer ${item.answer}`));
  if (item.true !== null) parts.push(make("small", {}, `true ${inUnit(item.true)}`));
  return parts;
}

function pictureCell(key, value) {
  return item => [picture(item.pictures[key], `${key === "cf" ? "counterfactual" : key} of ${item.id}`),
    make("small", {}, key === "heatmap" ? `mean ${number(item.change, 3)}` : inUnit(item[value]))];
}

function successCell(item) {
  const parts = [make("b", {class: item.success === false ? "no" : "yes"}, outcome(item))];
  if (item.reason) parts.push(make("small", {}, item.reason));
  return parts;
}

// Numbers by value, texts as a person counts ("a2" before "a10"), unknown values last.
function compareBy({value}) {
  return (a, b) => {
    const [x, y] = [value(cases[a]), value(cases[b])];
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "string" || typeof y === "string"
      ? String(x).localeCompare(String(y), "en", {numeric: true}) : x - y;
    return descending ? -order : order;
  };
}

function chosen(item) {
  const words = byId("search").value.trim().toLowerCase();
  const [success, target, verdict] = ["success", "target", "verdict"].map(id => byId(id).value);
  return (!words || `${item.id} ${item.reason ?? ""}`.toLowerCase().includes(words))
    && (!success || item.success === (success === "yes"))
    && (!target || String(item.target) === target)
    && (!verdict || (verdicts[item.id] ?? "none") === verdict)
    && [...byId("groups").querySelectorAll("select")].every(
      select => !select.value || String(item.groups[select.dataset.group] ?? "–") === select.value);
}

function refresh() {
  order = cases.map((_, i) => i).filter(i => chosen(cases[i]));
  if (sorted) order.sort(compareBy(sorted));
  filled = 0;
  byId("cases").scrollTop = 0;
  body.replaceChildren();
  fillMore();
  const shown = order.length === cases.length ? "" : `${order.length.toLocaleString("en")} of ${cases.length.toLocaleString("en")} results. `;
  byId("status").textContent = shown
    + (sorted ? `Sorted by ${sorted.label}, ${descending ? "descending" : "ascending"}.` : "");
}

function fillMore() {
  const visible = columns.filter(column => !column.hidden);
  const next = order.slice(filled, filled + CHUNK);
  filled += next.length;
  body.append(...next.map(index => make("tr", {role: "row", "data-case": index}, ...visible.map(column => {
    const found = column.cell(cases[index]);
    return make("td", {role: "cell", class: column.kind, "data-label": column.label}, ...[found].flat());
  }))));
  byId("more").hidden = filled >= order.length;
}

function head() {
  const visible = columns.filter(column => !column.hidden);
  const widths = visible.map(({kind}) => WIDTHS[kind]);
  gallery.style.setProperty("--columns", widths.map(px => `minmax(${px}px, ${px}fr)`).join(" "));
  gallery.style.setProperty("--least", `${widths.reduce((sum, px) => sum + px + 12, 0)}px`);
  gallery.tHead.rows[0].replaceChildren(...visible.map(column => {
    const button = make("button", {type: "button"}, column.label);
    button.addEventListener("click", () => {
      descending = sorted === column && !descending;
      sorted = column;
      head();
      refresh();
      gallery.querySelector("[aria-sort] button")?.focus({preventScroll: true});
    });
    const direction = sorted === column ? (descending ? "descending" : "ascending") : null;
    return make("th", {role: "columnheader", class: column.kind, "aria-sort": direction}, button);
  }));
}

function choice(column) {
  const box = make("input", {type: "checkbox", checked: !column.hidden});
  box.addEventListener("change", () => {
    column.hidden = !box.checked;
    head();
    refresh();
  });
  return make("label", {}, box, ` ${column.label}`);
}

function options(select, values) {
  select.append(...values.map(value => make("option", {value}, typeof value === "number" ? compact(value) : value)));
}

function startCases() {
  byId("columns").append(...columns.slice(1).map(choice));
  const targets = [...new Set(cases.map(item => item.target))];
  options(byId("target"), targets.length > 200 ? [] : targets.sort((a, b) => a - b));
  byId("target").parentElement.hidden = targets.length < 2 || targets.length > 200;
  for (const name of data.groups) {
    const select = make("select", {"data-group": name}, make("option", {value: ""}, "all"));
    options(select, [...new Set(cases.map(item => String(item.groups[name] ?? "–")))].sort());
    byId("groups").append(make("label", {}, `${name} `, select));
  }
  const form = document.querySelector(".filters");
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", event => event.target.type === "checkbox" || refresh());
  byId("more").addEventListener("click", fillMore);
  new IntersectionObserver(entries => {
    if (entries.some(entry => entry.isIntersecting)) fillMore();
  }, {root: byId("cases"), rootMargin: "1500px"}).observe(byId("more"));
  head();
  refresh();
}

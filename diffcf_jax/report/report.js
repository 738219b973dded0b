"use strict";
const gallery = document.querySelector(".gallery");
const body = gallery.tBodies[0];
const headings = [...gallery.tHead.rows[0].cells];

// Sorting: numbers by value, names as a person counts ("a2" before "a10"), unknown values last.
headings.forEach((heading, column) => {
  heading.firstElementChild.addEventListener("click", () => {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const text = heading.classList.contains("name");
    const rows = [...body.rows].map(row => [row.cells[column].dataset.v, row]);
    rows.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = text ? a.localeCompare(b, "en", {numeric: true}) : a - b;
      return descending ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
    headings.forEach(other => other.removeAttribute("aria-sort"));
    const direction = descending ? "descending" : "ascending";
    heading.setAttribute("aria-sort", direction);
    document.getElementById("status").textContent =
      `Sorted by ${heading.textContent}, ${direction}`;
  });
});

// The viewer shows one row large; arrow keys go to the rows above and below.
const viewer = document.getElementById("viewer");
let shown = null;

function show(row) {
  if (!row) return;
  shown = row;
  const cells = [...row.cells];
  document.getElementById("viewer-title").textContent = cells[0].firstElementChild.textContent;
  viewer.querySelector(".pictures").replaceChildren(
    ...cells.filter(cell => cell.classList.contains("picture")).map(cell => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = `${cell.dataset.label}, ${cell.querySelector("small").textContent}`;
      const image = cell.querySelector("img").cloneNode();
      image.loading = "eager";
      figure.append(image, caption);
      return figure;
    }));
  viewer.querySelector("dl").replaceChildren(
    ...cells.filter(cell => cell.matches(".number, .success")).map(cell => {
      const pair = document.createElement("div");
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      term.textContent = cell.dataset.label;
      value.append(...[...cell.childNodes].map(node => node.cloneNode(true)));
      pair.append(term, value);
      return pair;
    }));
  const curve = row.querySelector(".curve");
  viewer.querySelector(".plot").replaceChildren(
    ...(curve ? [curve.cloneNode(true), curve.getAttribute("aria-label")] : []));
  if (!viewer.open) viewer.showModal();
}

function step(by) {
  show(by < 0 ? shown.previousElementSibling : shown.nextElementSibling);
}

body.addEventListener("click", event => {
  if (event.target.closest("img, .open")) show(event.target.closest("tr"));
});
viewer.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (event.target === viewer || button?.hasAttribute("data-close")) viewer.close();
  else if (button) step(Number(button.dataset.step));
});
viewer.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
viewer.addEventListener("close", () => shown.querySelector(".open").focus());

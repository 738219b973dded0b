// What a reader does with the page; the findings become the page's title.
const violations = [];
document.addEventListener("securitypolicyviolation", event => violations.push(event.blockedURI));
const failures = [];
addEventListener("error", event => failures.push(event.message));
const complaints = [];
for (const level of ["error", "warn"]) console[level] = text => complaints.push(String(text));

function names() {
  return [...document.querySelectorAll(".gallery .open")].map(button => button.textContent);
}

function heading(label) {
  return [...document.querySelectorAll(".gallery th")].find(th => th.textContent === label);
}

function press(key) {
  viewer.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
}

function set(id, value) {
  byId(id).value = value;
  byId(id).dispatchEvent(new Event("input", {bubbles: true}));
}

function sortBothWays(found) {
  found.first = names();
  for (const label of ["Image", "Reconstruction", "After", "Success", "Oracle"]) {
    found.sorted[label] = [];
    for (let i = 0; i < 2; i++) {
      heading(label).firstElementChild.click();
      found.sorted[label].push([heading(label).getAttribute("aria-sort"), names()]);
    }
  }
  found.marked = document.querySelectorAll("[aria-sort]").length;
  found.status = byId("status").textContent;
}

function filter(found) {
  for (const [id, value] of [["search", "HARD"], ["search", "2 on"], ["success", "yes"], ["target", "0.7"]]) {
    set(id, value);
    found.filtered[value] = names();
    set(id, "");
  }
  const select = document.querySelector("#groups select");
  select.value = "north";
  select.dispatchEvent(new Event("input", {bubbles: true}));
  found.filtered.north = names();
  found.told = byId("status").textContent;
  select.value = "";
  select.dispatchEvent(new Event("input", {bubbles: true}));
}

function open(found) {
  heading("After").firstElementChild.click();
  const opener = document.querySelector(".gallery .open");
  opener.focus();
  opener.click();
  const title = byId("viewer-title");
  found.viewer = {
    open: viewer.open,
    titles: [title.textContent],
    told: byId("told").textContent,
    terms: [...viewer.querySelectorAll(".facts > dl dt")].map(term => term.textContent),
    curves: viewer.querySelectorAll(".plot svg").length,
    strip: [...viewer.querySelectorAll(".strip g")].map(part => part.lastElementChild.textContent),
    heat: viewer.querySelectorAll(".heat img").length,
  };
  const over = document.querySelector(".compare .over");
  found.split = ["0", "30", "100"].map(value => {
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
    return getComputedStyle(over).clipPath;
  });
  document.querySelector("#against [value=reconstruction]").click();
  found.viewer.left = byId("left").textContent;
  viewer.querySelector("[data-verdict=spurious]").click();
  for (const key of ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"]) {
    press(key);
    found.viewer.titles.push(title.textContent);
  }
  viewer.querySelector("[data-verdict=unclear]").click();
  viewer.querySelector("[data-verdict=unclear]").click();  // taken back
  found.hash = location.hash;
  viewer.querySelector("[data-close]").click();
  found.viewer.closed = !viewer.open;
}

addEventListener("load", () => {
  const found = {linked: byId("viewer-title").textContent, sorted: {}, filtered: {}};
  viewer.close();
  byId("columns").querySelectorAll("input").forEach(box => box.checked || box.click());
  found.columns = document.querySelectorAll(".gallery th").length;
  sortBothWays(found);
  filter(found);
  open(found);
  found.exported = JSON.parse(exported());
  found.kept = localStorage.getItem(KEY);
  document.querySelector("circle[data-case]").dispatchEvent(new Event("click", {bubbles: true}));
  found.fromPoint = viewer.open;
  viewer.close();
  found.width = [document.documentElement.scrollWidth, innerWidth];
  setTimeout(() => {
    // Those that a reader has not come near are not loaded.
    const loaded = [...document.images].filter(image => image.src && image.complete);
    found.images = loaded.length > 0 && loaded.every(image => image.naturalWidth > 0);
    found.violations = [...violations];
    Object.assign(found, {failures, complaints});
    // Whatever is not of the page must be refused.
    const image = document.createElement("img");
    image.src = "http://127.0.0.1:9/x.png";
    const script = document.createElement("script");
    script.textContent = "document.documentElement.dataset.ran = 'yes'";
    document.body.append(image, script);
    document.body.setAttribute("style", "color: red");
    setTimeout(() => {
      found.refused = violations.slice(found.violations.length);
      found.ran = "ran" in document.documentElement.dataset;
      document.title = JSON.stringify(found);
    }, 100);
  }, 300);
});

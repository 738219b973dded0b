// What a reader does with the page; the findings become the page's title.
const violations = [];
document.addEventListener("securitypolicyviolation", event => violations.push(event.blockedURI));
const failures = [];
addEventListener("error", event => failures.push(event.message));

function names() {
  return [...document.querySelectorAll(".gallery .open")].map(button => button.textContent);
}

function press(key) {
  viewer.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
}

addEventListener("load", () => {
  const found = {sorted: {}};
  for (const [column, label] of [[0, "name"], [2, "unknown"], [7, "after"], [9, "success"]]) {
    const heading = document.querySelectorAll(".gallery th")[column];
    found.sorted[label] = [];
    for (let i = 0; i < 2; i++) {
      heading.firstElementChild.click();
      found.sorted[label].push([heading.getAttribute("aria-sort"), names()]);
    }
  }
  found.marked = document.querySelectorAll("[aria-sort]").length;
  found.status = document.getElementById("status").textContent;

  document.querySelectorAll(".gallery th button")[7].click();
  document.querySelector(".gallery img").click();
  const title = document.getElementById("viewer-title");
  found.viewer = {
    open: viewer.open,
    titles: [title.textContent],
    pictures: viewer.querySelectorAll(".pictures img").length,
    captions: [...viewer.querySelectorAll("figcaption")].map(caption => caption.textContent),
    terms: [...viewer.querySelectorAll("dt")].map(term => term.textContent),
    curves: viewer.querySelectorAll(".plot svg").length,
  };
  for (const key of ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"]) {
    press(key);
    found.viewer.titles.push(title.textContent);
  }
  viewer.querySelector("[data-close]").click();
  found.viewer.closed = !viewer.open;
  found.width = [document.documentElement.scrollWidth, innerWidth];
  found.images = [...document.images].every(image => image.naturalWidth > 0);

  setTimeout(() => {
    found.focus = document.activeElement.textContent;
    found.violations = [...violations];
    found.failures = failures;
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
  }, 100);
});

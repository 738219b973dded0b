// What a reader does with the page of an audit; the findings become the page's title.
const violations = [];
document.addEventListener("securitypolicyviolation", event => violations.push(event.blockedURI));
const failures = [];
addEventListener("error", event => failures.push(event.message));

addEventListener("load", () => {
  const press = (article, verdict) => article.querySelector(`[data-verdict=${verdict}]`).click();
  const [first, second] = articles;
  press(first, "spurious");
  press(second, "feature");
  press(second, "feature");  // taken back
  const pressed = [...document.querySelectorAll("[aria-pressed=true]")];
  const images = [...document.images];
  images.forEach(image => { image.loading = "eager"; });
  setTimeout(() => {
    document.title = JSON.stringify({
      violations, failures,
      titles: articles.map(article => article.dataset.id),
      yours: [...document.querySelectorAll("[data-yours]")].map(cell => cell.textContent),
      pressed: pressed.map(button => button.textContent),
      exported: JSON.parse(exported()),
      images: images.filter(image => image.naturalWidth > 0).length / images.length,
      width: [document.documentElement.scrollWidth, innerWidth],
      intervals: document.querySelectorAll("svg.intervals .regressor circle").length,
    });
  }, 500);
});

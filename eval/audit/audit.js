// The verdicts of a reader on each direction.
const articles = [...document.querySelectorAll("article[data-id]")];

function show(article) {
  const {id} = article.dataset;
  for (const button of article.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", verdicts[id] === button.dataset.verdict);
  }
  for (const cell of document.querySelectorAll("[data-yours]")) {
    if (cell.dataset.yours === id) cell.textContent = LABELS[verdicts[id]] ?? "–";
  }
}

for (const article of articles) {
  show(article);
  article.querySelector(".verdict").addEventListener("click", event => {
    const button = event.target.closest("[data-verdict]");
    if (!button) return;
    setVerdict(article.dataset.id, button.dataset.verdict);
    show(article);
  });
}
byId("export").addEventListener("click", () => saveVerdicts(exported()));

function exported() {
  return exportedAs(({id, source, effect, gaps, by_rule}) => ({direction: id, source, effect, gaps, by_rule}));
}

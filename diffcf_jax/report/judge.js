// Verdicts on the case that is open.
function judge(verdict) {
  setVerdict(cases[current].id, verdict);
  showVerdict();
  refresh();
}

function showVerdict() {
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", verdicts[cases[current].id] === button.dataset.verdict);
  }
}

function exported() {
  return exportedAs(({id, name, target, answer, after}) => ({id, name, target, answer, after}));
}

viewer.querySelector(".verdict").addEventListener("click", event => {
  const button = event.target.closest("[data-verdict]");
  if (button) judge(button.dataset.verdict);
});
byId("export").addEventListener("click", () => saveVerdicts(exported()));

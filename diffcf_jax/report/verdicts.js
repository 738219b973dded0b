// What a person thinks of each case, kept by the browser and exported as JSON.
const LABELS = {feature: "true feature", spurious: "spurious", unclear: "unclear"};
const KEY = `diffcf verdicts ${data.run} ${data.digest}`;
const verdicts = readVerdicts();

function readVerdicts() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};  // the browser keeps nothing for local files
  }
}

function judge(verdict) {
  const {id} = cases[current];
  if (verdicts[id] === verdict) delete verdicts[id];
  else verdicts[id] = verdict;
  try {
    localStorage.setItem(KEY, JSON.stringify(verdicts));
  } catch {}
  showVerdict();
  refresh();
}

function showVerdict() {
  for (const button of document.querySelectorAll("[data-verdict]")) {
    button.setAttribute("aria-pressed", verdicts[cases[current].id] === button.dataset.verdict);
  }
}

function exported() {
  const found = cases.filter(({id}) => id in verdicts).map(({id, name, target, answer, after}) => (
    {id, name, target, answer, after, verdict: LABELS[verdicts[id]]}));
  return JSON.stringify({run: data.run, digest: data.digest, judged: found.length, of: cases.length, verdicts: found}, null, 2);
}

viewer.querySelector(".verdict").addEventListener("click", event => {
  const button = event.target.closest("[data-verdict]");
  if (button) judge(button.dataset.verdict);
});
byId("export").addEventListener("click", () => {
  const href = `data:application/json;charset=utf-8,${encodeURIComponent(exported())}`;
  make("a", {href, download: `${data.run} verdicts.json`}).click();
});

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

// The same verdict again takes it back.
function setVerdict(id, verdict) {
  if (verdicts[id] === verdict) delete verdicts[id];
  else verdicts[id] = verdict;
  try {
    localStorage.setItem(KEY, JSON.stringify(verdicts));
  } catch {}
}

function exportedAs(describe) {
  const found = cases.filter(({id}) => id in verdicts).map(item => (
    {...describe(item), verdict: LABELS[verdicts[item.id]]}));
  return JSON.stringify({run: data.run, digest: data.digest, judged: found.length, of: cases.length, verdicts: found}, null, 2);
}

function saveVerdicts(text) {
  const href = `data:application/json;charset=utf-8,${encodeURIComponent(text)}`;
  make("a", {href, download: `${data.run} verdicts.json`}).click();
}

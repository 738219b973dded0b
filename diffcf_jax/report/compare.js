// Two pictures on each other, with a slider that uncovers one of them.
const slider = byId("slider");

function slide() {
  byId("viewer").style.setProperty("--split", `${slider.value}%`);
}

function compare(item) {
  const key = document.querySelector("#against input:checked").value;
  const before = item.pictures[key], after = item.pictures.cf;
  byId("against").hidden = !("reconstruction" in item.pictures);
  const box = document.querySelector(".compare");
  byId("left").textContent = `${key} ${inUnit(key === "input" ? item.before : item.reconstruction)}`;
  byId("right").textContent = `counterfactual ${inUnit(item.after)}`;
  const over = picture(before, `${key} of ${item.id}`, true);
  over.classList.add("over");
  box.replaceChildren(picture(after, `counterfactual of ${item.id}`, true), over, make("i"));
  const files = Object.entries(item.files).filter(([name]) => !data.images[item.pictures[name]].sharp);
  byId("files").hidden = !files.length;
  byId("files").replaceChildren("In full, in the folder of this page:", ...files.map(([name, path]) =>
    make("a", {href: `./${path.split("/").map(encodeURIComponent).join("/")}`}, name)));
  slide();
}

slider.addEventListener("input", slide);

// Dragging on the picture moves the slider as well.
document.querySelector(".compare").addEventListener("pointermove", event => {
  if (event.pointerType === "mouse" && event.buttons !== 1) return;
  const {left, width} = event.currentTarget.getBoundingClientRect();
  slider.value = 100 * (event.clientX - left) / width;
  slide();
});

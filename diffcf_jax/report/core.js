"use strict";
// What all parts of the page share: the data, elements, numbers and pictures.
const data = JSON.parse(document.getElementById("data").textContent);
const cases = data.cases;
const byId = id => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, attributes);
  element.append(...children);
  return element;
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(element, attributes);
  element.append(...children);
  return element;
}

function fill(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
}

function number(value, digits = data.digits) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

function inUnit(value) {
  return value === null || value === undefined || !data.unit
    ? number(value) : `${number(value)} ${data.unit}`;
}

function compact(value) {
  if (typeof value !== "number") return number(value);
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

function outcome(item) {
  return item.success === null ? "–" : item.success ? "reached" : "missed";
}

// A picture by its number in data.images; a note where there is none. Only pictures that come
// near the window are decoded.
const nearby = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting) continue;
    target.src = data.images[target.dataset.image].source;
    nearby.unobserve(target);
  }
}, {rootMargin: "600px"});

function picture(index, alt, now = false) {
  if (index === null || index === undefined) return make("span", {class: "missing"}, "no picture");
  const {width, height, sharp, source} = data.images[index];
  const image = make("img", {width, height, alt, class: sharp ? "sharp" : null, decoding: "async"});
  if (now) {
    image.src = source;
  } else {
    image.dataset.image = index;
    nearby.observe(image);
  }
  return image;
}

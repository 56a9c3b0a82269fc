// Before and after in one place, with a divider. The divider is a range input: arrow keys, Home, End and fingers move it.

const stage = document.getElementById("compare");
const split = document.getElementById("split");
const before = document.getElementById("before");
const after = document.getElementById("after");

const SMALL = 200; // pictures of fewer pixels are shown larger, as pixels

function move() {
  stage.style.setProperty("--split", `${split.value}%`);
  split.setAttribute("aria-valuetext", `${split.value} % before, ${100 - split.value} % after`);
}
split.addEventListener("input", move);
move();

// Two elements of one size: images, videos or canvases.
export function show(first, second) {
  before.replaceChildren(first);
  after.replaceChildren(second);
}

export function fit(width) {
  stage.classList.toggle("small", width < SMALL);
  stage.style.setProperty("--natural", `${Math.max(width, 480)}px`);
}

export function mirror(on) {
  stage.classList.toggle("mirror", on);
}

// The report's pictures and charts, enlarged in a dialog: by a click, or by Enter on a focused one; Esc closes.
// Without this script the page shows all the same, only smaller.
"use strict";

const dialog = document.getElementById("enlarged");
const place = document.getElementById("enlarged-picture");
const caption = document.getElementById("enlarged-caption");

for (const button of document.querySelectorAll("button.enlarge")) {
  button.addEventListener("click", () => {
    const section = button.closest("section");
    const picture = button.firstElementChild.cloneNode(true);
    // A copied chart repeats its ids, which stay the same drawings.
    place.replaceChildren(picture);
    const title = button.closest("figure").querySelector("figcaption")?.innerText ?? "";
    const made = section?.querySelector(".made")?.innerText ?? "";
    caption.innerText = [title, made].filter(Boolean).join("\n");
    dialog.showModal();
  });
}
document.getElementById("enlarged-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

// What is folded away is printed too.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) {
    folded.open = true;
    folded.dataset.folded = "";
  }
});
addEventListener("afterprint", () => {
  for (const opened of document.querySelectorAll("details[data-folded]")) {
    opened.open = false;
    delete opened.dataset.folded;
  }
});

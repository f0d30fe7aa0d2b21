"use strict";
// Without scripts the page reads as it is: the filter appears, and headings become buttons, only where they run.
const contents = document.querySelector(".contents > details");
const narrow = window.matchMedia("(max-width: 62rem)");
const foldContents = () => { if (contents) contents.open = !narrow.matches; };
narrow.addEventListener("change", foldContents);
foldContents();

const filter = document.querySelector(".filter");
if (filter) {
  const [verdict, claim, smoke, shown] = ["verdict", "claim", "smoke", "shown"].map(name => filter.elements[name]);
  const cards = [...document.querySelectorAll("article[data-verdict]")];
  const claims = [...document.querySelectorAll("li[data-claim]")];
  const nothing = document.getElementById("nothing");
  const fits = item => !claim.value || claim.value === `is ${item.dataset.state}` || claim.value === item.dataset.claim;
  const apply = () => {
    claims.forEach(item => { item.hidden = !fits(item); });
    const wanted = new Set(claims.filter(fits).map(item => item.dataset.claim));
    cards.forEach(card => {
      const speaks = card.dataset.claims.split(" ").some(name => wanted.has(name));
      card.hidden = !((!verdict.value || verdict.value === card.dataset.verdict) && (!claim.value || speaks)
        && (!smoke || smoke.checked || !card.classList.contains("smoke")));
    });
    document.querySelectorAll(".contents a[data-card]").forEach(link => {
      link.parentNode.hidden = document.getElementById(link.dataset.card).hidden;
    });
    document.querySelectorAll("[data-ledger]").forEach(part => {
      part.hidden = !part.querySelector("li[data-claim]:not([hidden])");
    });
    const count = cards.filter(card => !card.hidden).length;
    shown.value = `${count} of ${cards.length} studies shown`;
    nothing.hidden = count > 0;
  };
  const reset = () => { filter.reset(); apply(); };
  filter.addEventListener("submit", event => event.preventDefault());
  filter.addEventListener("input", apply);
  filter.querySelector("button").addEventListener("click", reset);
  filter.hidden = false;
  apply();
  // a link leads to its place though the filter hides it, or it is folded
  const reveal = () => {
    const place = document.getElementById(location.hash.slice(1));
    if (!place) return;
    if (place.closest("[hidden]")) reset();
    for (let fold = place.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    const own = place.querySelector(":scope > details");
    if (own && place.matches("li")) own.open = true;
    place.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);
  reveal();
}

document.querySelectorAll("#findings thead th").forEach((heading, column) => {
  const button = document.createElement("button");
  button.textContent = heading.textContent;
  heading.replaceChildren(button);
  button.addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    heading.parentNode.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = document.querySelector("#findings tbody");
    const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)], [p, q] = [Number(x), Number(y)];
      if (x === "" || y === "") return (x === "") - (y === "");  // what has no number stays at the end
      const order = Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q;
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  });
});

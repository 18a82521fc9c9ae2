// Light or dark, and the page renewed in place while a run grows.
(() => {
  const BOXES = ".text, .tokens, .scroll, pre";
  const root = document.documentElement, sources = new Map();
  let last = null, waiting = null;

  const preferred = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const kept = (value) => {
    try {
      if (value) localStorage.setItem("tutelage-theme", value);
      return localStorage.getItem("tutelage-theme");
    } catch {
      return null; // A page opened from a file may have no store; then the choice lasts as long as the page.
    }
  };
  function theme() {
    const place = document.querySelector("#top .top nav");
    if (!place) return;
    const button = document.createElement("button");
    const name = () => { button.textContent = (root.dataset.theme || preferred()) === "dark" ? "Light" : "Dark"; };
    button.type = "button";
    button.dataset.key = "theme";
    button.title = "Change between light and dark";
    button.addEventListener("click", () => {
      root.dataset.theme = (root.dataset.theme || preferred()) === "dark" ? "light" : "dark";
      kept(root.dataset.theme);
      name();
    });
    name();
    place.append(button);
  }

  const blocks = (page) => [page.getElementById("top"), ...(page.getElementById("main")?.children ?? [])].filter(Boolean);
  const name_of = (block, place) => block.id || `block ${place}`;
  const note = (page) => blocks(page).forEach((block, place) => sources.set(name_of(block, place), block.outerHTML));
  const fold = (details) => details.dataset.key || details.querySelector("summary")?.textContent || "";
  function key(node) {
    if (!node || node === document.body) return null;
    const inside = node.closest("#top, #main > *")?.id ?? "";
    const own = node.id || node.dataset?.key || (node.tagName === "SUMMARY" ? fold(node.parentElement) : "")
      || node.getAttribute("href") || node.getAttribute("aria-label");
    return own ? `${inside} ${node.tagName} ${own}` : null;
  }
  function boxes() {
    const seen = new Map();
    return [...document.querySelectorAll(BOXES)].map((box) => {
      const inside = box.closest("[data-key], article, section, header"), name = inside?.id || inside?.dataset.key || inside?.getAttribute("aria-label") || "";
      seen.set(name, (seen.get(name) ?? 0) + 1);
      return [`${name} ${seen.get(name)}`, box];
    });
  }

  // The text of a whole page in place of this one: only the parts that differ are renewed, and what the reader has
  // opened, scrolled, zoomed or focused stays as it is. The text is parsed where no script runs.
  function refresh(text) {
    if (typeof text !== "string" || text === last) return false;
    if (window.tutelage.dragging()) {
      waiting = text;
      return true;
    }
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const main = document.getElementById("main"), data = document.getElementById("chart-data");
    if (!fresh.getElementById("main")) return false;
    last = text;
    const open = new Map([...document.querySelectorAll("details")].map((one) => [fold(one), one.open]));
    const scrolled = new Map(boxes().map(([name, box]) => [name, [box.scrollLeft, box.scrollTop]]));
    const focused = key(document.activeElement), at = [scrollX, scrollY];
    const given = new Map(blocks(fresh).map((block, place) => [name_of(block, place), block.outerHTML]));
    const changed = (id) => sources.get(id) !== given.get(id);
    const numbers = fresh.getElementById("chart-data")?.textContent ?? "";
    const curves = changed("curves") || numbers !== data.textContent;
    if (changed("top")) document.getElementById("top").replaceChildren(...fresh.getElementById("top").childNodes);
    const order = (page) => [...page.getElementById("main").children].map((one) => one.id).join(" ");
    if (order(fresh) === order(document)) {
      [...fresh.getElementById("main").children].forEach((section, i) => {
        if (changed(name_of(section, i + 1)) || (section.id === "curves" && curves)) main.children[i].replaceWith(section);
      });
    } else main.replaceChildren(...fresh.getElementById("main").childNodes);
    const news = curves || [...given.keys()].some(changed) || given.size !== sources.size;
    const dressed = document.querySelector("[data-key=theme]");
    sources.clear();
    given.forEach((source, id) => sources.set(id, source));
    data.textContent = numbers;
    document.title = fresh.title;
    if (fresh.documentElement.dataset.live) root.dataset.live = fresh.documentElement.dataset.live;
    if (!dressed) theme();
    if (!document.querySelector("svg.live")) window.tutelage.draw();
    document.querySelectorAll("details").forEach((one) => { if (open.has(fold(one))) one.open = open.get(fold(one)); });
    boxes().forEach(([name, box]) => { if (scrolled.has(name)) [box.scrollLeft, box.scrollTop] = scrolled.get(name); });
    if (focused && key(document.activeElement) !== focused) {
      const every = document.querySelectorAll("a, button, select, summary, [tabindex]");
      [...every].find((one) => key(one) === focused)?.focus({ preventScroll: true });
    }
    scrollTo(...at);
    document.dispatchEvent(new CustomEvent("tutelage:refreshed"));
    return news;
  }

  const chosen = kept();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  note(document);
  theme();
  window.tutelage.draw();
  window.tutelage.refresh = refresh;
  window.tutelage.afterwards(() => {
    const text = waiting;
    waiting = null;
    if (text) refresh(text);
  });
  document.addEventListener("tutelage:refresh", (event) => refresh(event.detail));
})();

(() => {
  "use strict";
  const mine = "PAGE_KIND";
  let version = "", again = 1, timer = 0, notice = null;

  function say(words) {
    if (!words && !notice) return;
    if (!notice) {
      notice = document.createElement("p");
      notice.className = "warning";
      notice.setAttribute("role", "status");
      document.body.prepend(notice);
    }
    if (notice.textContent !== words) notice.textContent = words;
    notice.hidden = !words;
  }

  // Pages without a script of their own: what is ticked and what has the focus stays.
  function swap(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    const ticked = new Set(Array.from(document.querySelectorAll("input:checked"), (box) => box.value));
    const focused = document.activeElement ? document.activeElement.id : "";
    for (const id of ["top", "main"]) {
      const old = document.getElementById(id), made = fresh.getElementById(id);
      if (old && made) old.replaceChildren(...made.childNodes);
    }
    document.title = fresh.title;
    for (const box of document.querySelectorAll("input[type=checkbox]")) box.checked = ticked.has(box.value);
    if (focused && document.getElementById(focused)) document.getElementById(focused).focus({ preventScroll: true });
  }

  async function look() {
    const headers = version ? { "If-None-Match": version } : {};
    const answer = await fetch(location.href, { headers, cache: "no-store", credentials: "same-origin", redirect: "error" });
    again = Number(answer.headers.get("Tutelage-Again")) || 5;
    if (answer.status === 403) {
      say("The dashboard was started anew: open the address that it printed in the terminal.");
    } else if (answer.status === 200) {
      const html = await answer.text();
      if (answer.headers.get("Tutelage-Page") !== mine) return location.reload();
      version = answer.headers.get("ETag") || "";
      if (mine === "run") window.tutelage.refresh(html);
      else swap(html);
      say("");
    } else if (answer.status === 304) {
      say("");
    }
  }

  async function turn() {
    clearTimeout(timer);
    if (!document.hidden) {
      try {
        await look();
      } catch (error) {
        again = 2;
        say("The dashboard does not answer: it was stopped, or is busy. This page is as it was last.");
      }
    }
    timer = setTimeout(turn, 1000 * again);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  timer = setTimeout(turn, 1000);
})();

// Makes a log live: asks for new lines as they are written, and puts them at its end. Without it the page has the last lines.
"use strict";
(() => {
  const log = document.getElementById("log");
  if (!log || !log.dataset.log || !window.EventSource) return;
  const state = document.getElementById("log-state");
  const follow = document.getElementById("log-follow");
  const max = Number(log.dataset.max) || 1000;
  let following = true, wait = 1000;
  const bottom = () => { if (following) log.scrollTop = log.scrollHeight; };
  const say = (text) => { if (state.textContent !== text) state.textContent = text; };
  const set = (on) => { following = on; follow.setAttribute("aria-pressed", String(on)); follow.textContent = on ? "Following" : "Follow"; bottom(); };
  state.hidden = follow.hidden = false;
  follow.addEventListener("click", () => set(!following));
  // Whoever scrolls up reads.
  log.addEventListener("scroll", () => {
    const is = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    if (is !== following) set(is);
  });
  let open = null;
  const leave = () => { if (open) open.close(); open = null; };
  const connect = () => {
    if (open || document.hidden) return;
    const source = open = new EventSource(log.dataset.log);
    source.addEventListener("begun", () => { say("Live"); wait = 1000; log.replaceChildren(); });
    source.addEventListener("none", () => { say("Nothing runs now"); wait = 1000; });
    source.addEventListener("line", (event) => {
      const line = JSON.parse(event.data);
      const item = document.createElement("li"), from = document.createElement("span"), said = document.createElement("span");
      if (line.error) item.className = "err";
      from.className = "from"; from.textContent = line.service;
      said.className = "said"; said.textContent = line.text;
      item.append(from, " ");
      if (line.error) {
        const error = document.createElement("span");
        error.className = "hide"; error.textContent = "error: ";
        item.append(error);
      }
      item.append(said);
      log.append(item);
      while (log.childElementCount > max) log.firstElementChild.remove();
      const empty = document.getElementById("log-empty");
      if (empty) empty.remove();
      bottom();
    });
    source.onerror = () => { leave(); say("Not live: trying again"); setTimeout(connect, wait); wait = Math.min(wait * 2, 15000); };
  };
  addEventListener("pagehide", leave);
  // A browser keeps six connections to one device: a page that nobody sees gives its own back.
  document.addEventListener("visibilitychange", () => { if (document.hidden) leave(); else connect(); });
  set(true);
  connect();
})();

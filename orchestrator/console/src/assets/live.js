// Makes pages live. Every page works without it: it asks for the same page again, and puts in what changed.
//
//   <html data-live="/path">                                       what changed is heard there; else parts are asked for again by time alone
//   <html data-from="/path">                                       answers a form: it is asked for again there, and never reloaded
//   <section id="apps" data-live="app device" data-every="10">   asked for again when an app or device changed, and every 10 s
//   <section id="x" data-live="device" data-from="/path">          … from another path
//   <b data-said>                                                  in such a section: read out when it changed
//   <time data-ago datetime>, data-until, data-for                counted on
//   <button data-copy="id">                                        copies what stands in that element
"use strict";
(() => {
  const root = document.documentElement;
  const away = document.getElementById("away");
  const posted = root.dataset.from;
  // What does not answer within this does not answer.
  const LOAD_MS = 20000;
  const skew = Date.now() - Date.parse(root.dataset.now || new Date().toISOString());

  const span = (ms) => {
    const s = Math.floor(ms / 1000);
    if (s < 120) return s + " s";
    if (s < 7200) return Math.floor(s / 60) + " min";
    if (s < 172800) return Math.floor(s / 3600) + " h";
    if (s < 5184000) return Math.floor(s / 86400) + " days";
    if (s < 63072000) return Math.floor(s / 2592000) + " months";
    return Math.floor(s / 31536000) + " years";
  };
  const write = (it, text) => { if (it.textContent !== text) it.textContent = text; };
  const tick = () => {
    const now = Date.now() - skew;
    for (const it of document.querySelectorAll("time[data-ago]")) {
      const ms = now - Date.parse(it.dateTime);
      write(it, ms < 0 ? "just now" : span(ms) + " ago");
    }
    for (const it of document.querySelectorAll("time[data-for]")) write(it, span(Math.max(0, now - Date.parse(it.dateTime))));
    for (const it of document.querySelectorAll("time[data-until]")) {
      const ms = Date.parse(it.dateTime) - now;
      write(it, ms < 0 ? "over" : "in " + span(ms));
    }
  };
  setInterval(tick, 1000);

  // One line for those who listen. It stays while parts of the page are replaced, and says what is new, not what counts on.
  const line = document.getElementById("said");
  let silence = null;
  const say = (text) => {
    if (!line || !text) return;
    line.textContent = text;
    clearTimeout(silence);
    // The same words may be news again.
    silence = setTimeout(() => { line.textContent = ""; }, 5000);
  };
  const meant = (it) => [...it.querySelectorAll("[data-said]")].map((one) => one.textContent.replace(/\s+/g, " ").trim());

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    const from = button && document.getElementById(button.dataset.copy);
    if (!from) return;
    const text = from.textContent.trim();
    const done = () => {
      button.dataset.words = button.dataset.words || button.textContent;
      button.textContent = "Copied";
      say("Copied");
      setTimeout(() => { button.textContent = button.dataset.words; }, 2000);
    };
    const select = () => {
      getSelection().selectAllChildren(from);
      if (document.execCommand("copy")) done();
    };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, select);
    else select();
  });
  for (const it of document.querySelectorAll("[data-copy]")) it.hidden = false;
  // An order is given once.
  document.addEventListener("submit", (event) => setTimeout(() => {
    for (const button of event.target.querySelectorAll("button:enabled")) {
      button.disabled = true;
      button.dataset.sent = "";
    }
  }, 0));
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    for (const it of document.querySelectorAll("[data-sent]")) { it.disabled = false; delete it.dataset.sent; }
  });

  const gone = (is) => { if (away) away.hidden = !is; };
  const live = () => [...document.querySelectorAll("[data-live][id]")];
  // What somebody fills in is left alone, and so is what they just sent.
  const busy = (it) => {
    const at = document.activeElement;
    return (it.contains(at) && at.matches("input, select, textarea")) || it.querySelector("[data-sent]");
  };
  // What had the focus, in what came: the same thing, and none that only stands where it stood.
  const name = (it) => {
    const own = it.id || it.getAttribute("href") || (it.matches("button, summary") && it.textContent.trim()) || "";
    return [it.tagName, own, it.form ? it.form.getAttribute("action") : ""].join(" ");
  };
  const steps = (from, to) => {
    const all = [];
    for (let at = to; at !== from; at = at.parentElement) all.unshift([...at.parentElement.children].indexOf(at));
    return all;
  };
  const again = (fresh, way, was) => {
    const there = way.reduce((at, step) => at && at.children[step], fresh);
    if (there && name(there) === was) return there;
    return [...fresh.querySelectorAll("a, button, summary")].find((one) => name(one) === was);
  };
  // Puts a part in; returns what is new in it for those who listen.
  const put = (it, page) => {
    const fresh = page.getElementById(it.id);
    if (!fresh) {
      if (!posted) location.reload();
      return [];
    }
    if (busy(it) || fresh.outerHTML === it.outerHTML) return [];
    const known = meant(it);
    const open = [...it.querySelectorAll("details")].map((one) => one.open);
    const at = it !== document.activeElement && it.contains(document.activeElement) ? document.activeElement : null;
    const [way, was] = at ? [steps(it, at), name(at)] : [[], ""];
    it.replaceWith(fresh);
    [...fresh.querySelectorAll("details")].forEach((one, at) => { if (open[at]) one.open = true; });
    for (const one of fresh.querySelectorAll("[data-copy]")) one.hidden = false;
    if (at) (again(fresh, way, was) || document.getElementById("main")).focus({ preventScroll: true });
    return meant(fresh).filter((words) => !known.includes(words));
  };
  const load = async (those) => {
    const paths = new Map(), news = [];
    for (const it of those) {
      const path = it.dataset.from || posted || location.pathname + location.search;
      paths.set(path, [...(paths.get(path) || []), it.id]);
    }
    for (const [path, ids] of paths) {
      let answer, text;
      try {
        const signal = AbortSignal.timeout(LOAD_MS);
        answer = await fetch(path, { headers: { accept: "text/html" }, credentials: "same-origin", signal });
        text = await answer.text();
      } catch { return gone(true); }
      if (answer.status >= 500) return gone(true);
      gone(false);
      // Too many pages are open: later.
      if (answer.status === 429) return;
      // A login that ended, or a thing that is gone: the browser shows it. What answers a form would be sent once more.
      if (answer.redirected || !answer.ok) {
        if (!posted) return location.reload();
        return answer.redirected ? location.assign(posted) : undefined;
      }
      const page = new DOMParser().parseFromString(text, "text/html");
      for (const id of ids) { const it = document.getElementById(id); if (it) news.push(...put(it, page)); }
      tick();
    }
    say(news.filter(Boolean).join(". "));
  };
  // One after the other: what is asked for meanwhile waits, so no answer replaces a newer one.
  let waiting = new Set(), loads = false;
  const soon = (those) => {
    for (const it of those) waiting.add(it.id);
    if (loads || !waiting.size) return;
    loads = true;
    setTimeout(async () => {
      const those = live().filter((it) => waiting.has(it.id));
      waiting = new Set();
      try {
        if (those.length && !document.hidden) await load(those);
      } finally {
        loads = false;
        soon([]);
      }
    }, 400);
  };
  const source = root.dataset.live;
  if (!live().length) return;

  let wait = 1000, watch = null, later = null;
  const leave = () => {
    clearTimeout(later);
    if (watch) watch.close();
    watch = null;
  };
  // A browser keeps few connections to a hive: a page that nobody sees gives its own back.
  const connect = () => {
    if (!source || watch || document.hidden) return;
    watch = new EventSource(source);
    watch.addEventListener("begun", () => { wait = 1000; gone(false); });
    watch.addEventListener("all", () => soon(live()));
    watch.addEventListener("changed", (event) => {
      const { kind } = JSON.parse(event.data);
      soon(live().filter((it) => it.dataset.live.split(" ").includes(kind)));
    });
    watch.onerror = () => {
      leave();
      // The hive begins anew, or the login ended: a page asked for tells which.
      later = setTimeout(() => { soon(live()); connect(); }, wait);
      wait = Math.min(wait * 2, 15000);
    };
  };
  connect();
  let seconds = 0;
  setInterval(() => {
    seconds += 1;
    if (document.hidden) return;
    soon(live().filter((it) => it.dataset.every && seconds % Number(it.dataset.every) === 0));
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return leave();
    soon(live());
    connect();
  });
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
})();

"""How pages look and read: pictures of each in light, dark and on a phone, axe-core on it, its weight, its speed.

Pictures go to target/suites/console. axe-core comes from npm, pinned in `axe/package-lock.json`.
"""

import hashlib
import os
import pathlib
import shutil
import tempfile
import urllib.parse

import stage
import webdriver

PICTURES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", stage.ROOT / "target")) / "suites/console"
PACKAGES = stage.ROOT / "tests/suites/axe"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
FIRST_PAGE_BYTES_MAX = 100 * 1024
FIRST_PAINT_MS_MAX = 200
AUDIT = """
const done = arguments[arguments.length - 1];
axe.run(document, {runOnly: arguments[0], resultTypes: ["violations"]}).then(
  (found) => done(found.violations.map((one) => `${one.id} (${one.help}): ` + one.nodes.slice(0, 4).map((node) =>
    `${node.target.join(" ")} ${node.any.concat(node.all).map((check) => check.message).join("; ")}`).join(" | "))),
  (error) => done([`axe-core failed: ${error}`]));
"""
# What reaches over the edge, as a person who looks for it would find it: the innermost one.
OVER = """
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= width) return [];
const rolls = (it) => { for (let up = it.parentElement; up; up = up.parentElement)
  if (["auto", "scroll", "hidden"].includes(getComputedStyle(up).overflowX) && up !== document.body) return true; return false; };
const wide = [...document.body.querySelectorAll("*")].filter((it) => it.getBoundingClientRect().right > width + 1 && !rolls(it));
return [`${document.documentElement.scrollWidth} px wide`, ...wide.filter((it) => ![...it.children].some((one) => wide.includes(one)))
  .slice(0, 3).map((it) => it.outerHTML.slice(0, 120))];
"""
WEIGHT = """
const all = [performance.getEntriesByType("navigation")[0], ...performance.getEntriesByType("resource").filter(
  (one) => ["link", "script", "img", "css", "other"].includes(one.initiatorType) && !one.name.endsWith("/live"))];
return all.map((one) => [new URL(one.name).pathname, one.decodedBodySize]);
"""
SEEN = "; document.dispatchEvent(new Event('visibilitychange'))"
PAINT = "const it = performance.getEntriesByName('first-contentful-paint')[0]; return it ? it.startTime : null;"


def axe():
    """The text of axe-core; its package is installed once for each lock file, into the user's cache."""
    lock = hashlib.sha256((PACKAGES / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "comb-test-servers"
    folder = cache / f"axe-{lock}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # To the end or not at all.
        new = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=cache))
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PACKAGES / name, new)
        stage.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=new, timeout=300)
        new.rename(folder)
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


class Looks:
    """Looks at pages, and keeps what is wrong with them until the end, so that all of it is told."""

    def __init__(self):
        shutil.rmtree(PICTURES, ignore_errors=True)
        PICTURES.mkdir(parents=True)
        self.axe, self.wrong, self.seen, self.origins = axe(), [], [], set()

    def at(self, browser, name):
        """The page where the browser is, in all its forms. The page is as it was afterwards."""
        name = f"{len(self.seen) + 1:02d}-{name}"
        self.seen.append(name)
        # What a page did not run when it was loaded, it does not run later.
        had_scripts = browser.has_scripts
        browser.scripts(True)
        # A live page stands still while it is looked at: it takes itself for one that nobody sees.
        browser.run("Object.defineProperty(document, 'hidden', {value: true, configurable: true})" + SEEN)
        for theme in ("light", "dark"):
            browser.dark(theme == "dark")
            browser.shot(PICTURES / f"{name}-{theme}.png")
            self.audit(browser, f"{name}, {theme}")
        browser.dark(False)
        browser.phone(True)
        browser.shot(PICTURES / f"{name}-phone.png")
        self.audit(browser, f"{name}, phone")
        if over := browser.run(OVER):
            self.wrong.append(f"{name}, phone: it scrolls sideways, {over}")
        browser.phone(False)
        browser.run("delete document.hidden" + SEEN)
        browser.scripts(had_scripts)

    def audit(self, browser, name):
        """axe-core on the page as it is now."""
        if not browser.run("return Boolean(window.axe)"):
            browser.run(self.axe)
        try:
            found = browser.run(AUDIT, RULES, is_async=True)
        except (webdriver.Missing, OSError) as error:
            found = [f"axe-core came to no end: {error}"]
        self.wrong += [f"{name}: {one}" for one in found]

    def weigh(self, browser):
        """Bytes of the page where the browser is, with all that it loads."""
        parts = browser.run(WEIGHT)
        total = sum(size for _, size in parts)
        stage.expect(len(parts) >= 3 and all(size for _, size in parts), f"something has no size: {parts}")
        stage.expect(total < FIRST_PAGE_BYTES_MAX, f"the page weighs {total} bytes: {parts}")
        return total

    def paint(self, browser, url):
        """Milliseconds until it paints first, the best of ten: others work on this machine too."""
        times = []
        for _ in range(10):
            browser.get(url)
            stage.wait_until(lambda: browser.run(PAINT) is not None, "a first paint", 20)
            times.append(browser.run(PAINT))
        stage.expect(min(times) <= FIRST_PAINT_MS_MAX, f"first paint after {times} ms")
        return min(times), sorted(times)[len(times) // 2]

    def asked(self, browser, *origins):
        """Whom the browser asked: nobody but these, by scheme, address and port."""
        browser.listen()
        origin = lambda url: urllib.parse.urlsplit(url)[:2]
        web = [url for url in browser.requested if url.startswith(("http", "ws", "ftp"))]
        others = [url for url in web if origin(url) not in [origin(one) for one in origins]]
        stage.expect(web and not others, f"pages asked others: {others[:5]}")
        broken = [one for one in browser.complaints if "Content Security Policy" in one or "Uncaught" in one]
        self.wrong += [f"the browser complains: {one}" for one in sorted(set(broken))]
        return len(web)

    def end(self):
        stage.expect(not self.wrong, f"{len(self.wrong)} things are wrong with pages:\n" + "\n".join(self.wrong))

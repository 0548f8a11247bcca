"""A headless Chromium, driven through chromedriver by plain WebDriver calls.

What is looked for is named as a person names it: a link, button or field by what stands on it. A page that is not there yet is waited for.
"""

import atexit
import base64
import contextlib
import json
import pathlib
import re
import tempfile
import time
import urllib.error
import urllib.request

import stage

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
SECONDS = 20
# `--no-sandbox`: as root there is none. The rest keeps it from talking to anybody by itself.
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --hide-scrollbars --mute-audio "
    "--no-default-browser-check --disable-features=OptimizationHints,MediaRouter,Translate --window-size=1280,900 --lang=en"
).split()
SHIFTED, TAB, ENTER = "\ue008", "\ue004", "\ue007"
# Words as they are read, wherever they stand in a link, a button, a label.
TEXT = "normalize-space(translate(string(.), '\u00a0', ' '))"


class Missing(stage.Failed):
    """There is no such thing on the page."""


def quoted(text):
    """Text as XPath takes it."""
    return f"'{text}'" if "'" not in text else "concat('" + "', \"'\", '".join(text.split("'")) + "')"


class Driver:
    """chromedriver, which makes browsers."""

    def __init__(self, folder):
        self.folder, log = folder, folder / "chromedriver.log"
        log.unlink(missing_ok=True)
        self.process = stage.start(stage.tool("chromedriver"), "--port=0", log=log)
        found = []

        def listens():
            found[:] = re.findall(r"started successfully on port (\d+)", log.read_text())
            return found

        stage.wait_until(listens, "chromedriver's start", 30)
        self.url = f"http://127.0.0.1:{found[0]}"

    def ask(self, method, path, body=None, timeout=45):
        """One call; its value."""
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers={"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            told = json.loads(error.read())["value"]
            raise Missing(f"{told['error']}: {told['message'].splitlines()[0]}") from error


class Browser:
    """One browser with cookies of its own."""

    def __init__(self, driver):
        self.driver = driver
        profile = tempfile.mkdtemp(prefix="profile-", dir=driver.folder)
        options = {"binary": stage.tool("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        # A device's page has a certificate of its own.
        wish = {"acceptInsecureCerts": True, "goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        self.id = driver.ask("POST", "/session", {"capabilities": {"alwaysMatch": wish}})["sessionId"]
        self.requested, self.complaints, self.is_open, self.has_scripts = set(), [], True, True
        self.ask("POST", "/timeouts", {"script": 20_000, "pageLoad": 30_000})
        # Before chromedriver is ended: it would leave the browser behind.
        atexit.register(self.end)

    def ask(self, method, path, body=None):
        return self.driver.ask(method, f"/session/{self.id}{path}", body)

    def end(self):
        if self.is_open:
            self.is_open = False
            with contextlib.suppress(OSError, Missing):
                self.ask("DELETE", "")

    def cdp(self, command, **words):
        """A command of the browser's own protocol."""
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": words})

    # ------------------------------------------------------------ going

    def get(self, url):
        self.ask("POST", "/url", {"url": url})

    @property
    def url(self):
        return self.ask("GET", "/url")

    @property
    def path(self):
        return re.sub(r"^\w+://[^/]+", "", self.url)

    def reload(self):
        self.ask("POST", "/refresh")

    def back(self):
        self.ask("POST", "/back")

    # ------------------------------------------------------------ finding

    def all(self, xpath):
        return [one[ELEMENT] for one in self.ask("POST", "/elements", {"using": "xpath", "value": xpath})]

    def find(self, xpath, what=None, seconds=SECONDS):
        """The first one that is shown, waited for."""
        until = time.monotonic() + seconds
        while True:
            try:
                for one in self.all(xpath):
                    if self.ask("GET", f"/element/{one}/displayed"):
                        return one
            except Missing:
                pass  # The page was changed while it was looked at.
            if time.monotonic() >= until:
                raise Missing(f"no {what or xpath} at {self.url}, which reads: {self.text()[:1500]}")
            time.sleep(0.05)

    def has(self, xpath):
        """Whether it is there now."""
        try:
            self.find(xpath, seconds=0)
            return True
        except Missing:
            return False

    @staticmethod
    def link(words, within=""):
        """What leads somewhere or does something, by what stands on it, or begins it."""
        begins = f"[starts-with(concat({TEXT}, ' '), {quoted(words + ' ')})]"
        return " | ".join(f"{within}//{kind}{begins}" for kind in ("a", "button", "summary"))

    def field(self, label):
        """What a label belongs to."""
        own = f"//label[starts-with({TEXT}, {quoted(label)})]"
        return f"//*[@id = {own}/@for] | {own}//input | {own}//select"

    def click(self, words, within="", seconds=SECONDS):
        """Clicks a link or a button by what stands on it."""
        self.press(self.link(words, within), f"link or button “{words}”", seconds)

    def press(self, xpath, what=None, seconds=SECONDS):
        """Clicks; again, where a live page put another one in its place meanwhile."""
        until = time.monotonic() + seconds
        while True:
            try:
                return self.ask("POST", f"/element/{self.find(xpath, what, seconds)}/click")
            except Missing as error:
                if "no such element" not in str(error) and "stale" not in str(error) and "intercepted" not in str(error):
                    raise
                stage.expect(time.monotonic() < until, f"{what or xpath} could not be clicked: {error}")

    def fill(self, label, text):
        """Types into a field, in place of what stood there."""
        one = self.find(self.field(label), f"field “{label}”")
        self.ask("POST", f"/element/{one}/clear")
        self.ask("POST", f"/element/{one}/value", {"text": text})

    def choose(self, label, option):
        """One of a list."""
        own = self.field(label)
        self.press(" | ".join(f"{part}//option[{TEXT} = {quoted(option)}]" for part in own.split(" | ")), f"choice {option} of {label}")

    def keys(self, text):
        """Types wherever the focus is."""
        actions = [{"type": how, "value": key} for key in text for how in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    # ------------------------------------------------------------ reading

    def text(self):
        """All words of the page, as they are shown."""
        body = self.ask("POST", "/element", {"using": "css selector", "value": "body"})[ELEMENT]
        return self.ask("GET", f"/element/{body}/text")

    def read(self, xpath):
        return self.ask("GET", f"/element/{self.find(xpath)}/text")

    def wait(self, words, seconds=SECONDS, reload=False):
        """Waits for words, which may be a pattern, to be on the page; by itself, or asking for it again."""
        pattern = words if isinstance(words, re.Pattern) else re.compile(re.escape(words))
        until = time.monotonic() + seconds
        while True:
            try:
                text = self.text()
            except Missing:
                text = ""
            if found := pattern.search(text):
                return found
            stage.expect(time.monotonic() < until, f"no {pattern.pattern!r} within {seconds} s at {self.url}, which reads: {text[:1500]}")
            time.sleep(0.25)
            if reload:
                self.reload()

    def run(self, script, *words, is_async=False):
        return self.ask("POST", "/execute/async" if is_async else "/execute/sync", {"script": script, "args": list(words)})

    def shot(self, file):
        """The whole page as a PNG, with what is below the edge."""
        size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
        view = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1}
        picture = self.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=view)["data"]
        pathlib.Path(file).write_bytes(base64.b64decode(picture))

    # ------------------------------------------------------------ being another one

    def dark(self, is_dark):
        features = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def phone(self, is_phone):
        if is_phone:
            self.cdp("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
        else:
            self.cdp("Emulation.clearDeviceMetricsOverride")

    def scripts(self, are_on):
        """Those of pages; ours run at any time, but nothing that they wait for comes."""
        self.has_scripts = are_on
        self.cdp("Emulation.setScriptExecutionDisabled", value=not are_on)

    def listen(self):
        """Takes down whom the pages asked, and what the browser complained of, since the last time."""
        for entry in self.ask("POST", "/se/log", {"type": "performance"}):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requested.add(message["params"]["request"]["url"])
        self.complaints += [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]

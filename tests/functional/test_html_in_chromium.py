"""The HTML report in a real browser: what it shows, that it fits a phone, and that keys do nothing to it."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from replicator.bulk.html import HtmlReport
from replicator.model import Did, MiB, Outcome
from tests.awkward import AWKWARD_KEYS
from tests.conftest import REQUIRE_SERVERS

SECONDS = 150
TARGETS = ("s3://a-target/", f"https://objects.example.com/{'a-very-long-prefix' * 5}/", "s3://third/")
TITLE = "s3://from/ -> " + ", ".join(TARGETS)
IMAGE = "<img src=x onerror=\"document.title='pwned'\">"
SCRIPT = "<script>document.title='pwned'</script>"
POLICY = re.compile(r"<meta http-equiv=.Content-Security-Policy.*>")
SECTIONS = ("facts", "throughput", "sizes", "outcomes", "losses", "failures")
WIDTHS = (320, 400, 768, 1280)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)

# Frames of a page that measures them: a window of a headless browser cannot be made as narrow as a phone. What is in
# a .scroll may be wider, since that scrolls for itself.
MEASURE = """
<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
{frames}
<pre id="measured"></pre>
<script>
addEventListener("load", () => {{
  const found = {{}};
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, width = frame.clientWidth;
    const wide = [...page.querySelectorAll("body *")].filter(
      (one) => one.getBoundingClientRect().right > width + 0.5 && !one.parentElement.closest(".scroll"));
    found[frame.id] = {{
      title: page.title,
      scrolls: page.documentElement.scrollWidth - width,
      wide: wide.map((one) => one.outerHTML.slice(0, 100)),
      letters: Math.min(...[...page.querySelectorAll("svg text")].map((one) => one.getBoundingClientRect().height)),
      back: getComputedStyle(page.body).backgroundColor,
      ink: getComputedStyle(page.body).color,
      requests: frame.contentWindow.performance.getEntriesByType("resource").length,
    }};
  }}
  document.getElementById("measured").textContent = JSON.stringify(found);
}});
</script>
"""


@pytest.fixture(scope="module")
def chromium():
    """The browser's path."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = "no chromium found: apt-get install chromium"
        if os.environ.get(REQUIRE_SERVERS) == "1":
            pytest.fail(f"{REQUIRE_SERVERS} is set, but {reason}", pytrace=False)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def dom_of(chromium, tmp_path_factory):
    """What the browser makes of a file, after all that is in it has run."""

    def dump(path, *flags):
        profile = tmp_path_factory.mktemp("profile")
        command = [chromium, *FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", path.as_uri()]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True
        ) as browser:
            try:
                out, err = browser.communicate(timeout=SECONDS)
            except BaseException:
                os.killpg(browser.pid, signal.SIGKILL)  # it has started others; all of them are in its session
                raise
        assert browser.returncode == 0, err
        return out

    return dump


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of a run in which everything went on."""
    report = HtmlReport()
    for n in range(2000):
        loss = (f"metadata {'long-name' * 10}{n % 120}", "tags") if n % 9 == 0 else ()
        report.add(Outcome(f"key {n}", TARGETS[n % 3], Did.COPIED, "", bytes=4 ** (n % 24), not_kept=loss))
    for n in range(1, 60):
        report.sample(n * 10.0, n * n * 1000, n * n * 100 * MiB, max(0, n - 40))
    for key in (IMAGE, SCRIPT, *AWKWARD_KEYS):
        report.add(Outcome(key, TARGETS[1], Did.FAILED, f"PutObject {key}: not allowed"))
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write(path, title=TITLE, facts=[(IMAGE, "x" * 200), ("passes", "2")], problem=f"stopped: {IMAGE}")
    return path


@pytest.fixture(scope="module")
def measure(page, dom_of, tmp_path_factory):
    """Shows pages, by name, in frames of some width; gives what was measured of each."""

    def measured(pages, *flags):
        frames = (
            f'<iframe id="{name}" style="width:{width}px;border:0" srcdoc="{html.escape(text)}"></iframe>'
            for name, (text, width) in pages.items()
        )
        path = tmp_path_factory.mktemp("frames") / "frames.html"
        path.write_text(MEASURE.format(frames="\n".join(frames)), encoding="utf-8")
        found = re.search(r'<pre id="measured">(.+?)</pre>', dom_of(path, *flags), re.DOTALL)
        assert found, "the page that measures has not run"
        return json.loads(html.unescape(found[1]))

    return measured


def test_the_page_has_all_its_sections_and_keys_are_only_text(page, dom_of):
    dom = dom_of(page)
    assert re.findall(r'<section aria-labelledby="(\w+)-title">', dom) == list(SECTIONS)
    assert re.findall(r'<h2 id="(\w+)-title">', dom) == list(SECTIONS)
    assert re.findall(r"<title>(.*?)</title>", dom) == [html.escape(TITLE, quote=False)]
    assert dom.count("<svg ") == dom.count('role="img"') == 3
    assert dom.count('<tr role="row">') == 1 + 2 + len(AWKWARD_KEYS)
    assert "<img" not in dom
    assert "<script" not in dom
    assert html.escape(IMAGE, quote=False) in dom


def test_nothing_runs_that_a_key_brings_even_without_the_policy(page, measure):
    text = page.read_text(encoding="utf-8")
    bare, count = POLICY.subn("", text)
    assert count == 1
    found = measure({"bare": (bare, 800), "proof": (bare.replace("</main>", IMAGE), 800)})
    assert found["bare"]["title"] == TITLE
    assert found["bare"]["requests"] == 0
    assert found["proof"]["title"] == "pwned", "this test would see it"


def test_the_policy_stops_what_gets_onto_the_page_all_the_same(page, measure):
    text = page.read_text(encoding="utf-8")
    found = measure({"broken": (text.replace("</main>", IMAGE + SCRIPT + "</main>"), 800)})
    assert found["broken"]["title"] == TITLE


def test_nothing_is_wider_than_the_window_and_labels_can_be_read_on_a_phone(page, measure):
    text = page.read_text(encoding="utf-8")
    found = measure({f"at{width}": (text, width) for width in WIDTHS})
    assert {name: (one["scrolls"], one["wide"]) for name, one in found.items()} == {
        f"at{width}": (0, []) for width in WIDTHS
    }
    assert [one["letters"] for one in found.values() if one["letters"] < 9] == []


def test_the_page_is_dark_for_those_who_like_it(page, measure):
    text = page.read_text(encoding="utf-8")
    light = measure({"page": (text, 800)}, "--blink-settings=preferredColorScheme=1")["page"]
    dark = measure({"page": (text, 800)}, "--blink-settings=preferredColorScheme=0")["page"]
    assert (_brightness(light["back"]) > 200, _brightness(light["ink"]) < 100) == (True, True)
    assert (_brightness(dark["back"]) < 60, _brightness(dark["ink"]) > 180) == (True, True)


def _brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

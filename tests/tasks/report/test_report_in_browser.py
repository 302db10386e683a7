"""The report in a real browser: Chromium, headless, from a file."""

import shutil
from pathlib import Path

import pytest

from tasks.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH (Debian: apt install chromium)")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(digits_inputs, tmp_path_factory):
    """File of a rendered report."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_bytes(render_report(digits_inputs())["report.html"])
    return file


@pytest.fixture(scope="module")
def opened(browser, report):
    """Opens the report: opened("phone", scheme="dark") gives the page, what the console said, and what was fetched."""
    pages = {}

    def open_page(width, *, scheme):
        if (width, scheme) not in pages:
            wide, high = WIDTHS[width]
            page = browser.new_page(viewport={"width": wide, "height": high}, color_scheme=scheme)
            said, fetched = [], []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: fetched.append(request.url))
            page.goto(report.as_uri(), wait_until="load")
            pages[width, scheme] = page, said, fetched
        return pages[width, scheme]

    return open_page


VIEWS = [(width, scheme) for width in WIDTHS for scheme in ("light", "dark")]


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_page_renders_without_a_word_on_the_console_and_fetches_nothing(opened, report, width, scheme):
    page, said, fetched = opened(width, scheme=scheme)

    assert said == []
    assert [url for url in fetched if not url.startswith("data:")] == [report.as_uri()]
    assert page.locator("p.verdict").is_visible()


def test_every_image_is_loaded_and_every_chart_has_a_size(opened):
    page, _, _ = opened("desktop", scheme="light")

    broken = page.evaluate("[...document.images].filter(i => !i.complete || i.naturalWidth == 0).length")
    heights = page.evaluate("[...document.querySelectorAll('svg.chart')].map(c => c.getBoundingClientRect().height)")

    assert page.evaluate("document.images.length") > 40
    assert broken == 0
    assert len(heights) > 8
    assert min(heights) > 40


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_is_wider_than_the_screen(opened, width, scheme):
    page, _, _ = opened(width, scheme=scheme)

    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]


def test_text_is_large_enough_on_a_phone(opened):
    page, _, _ = opened("phone", scheme="light")

    # Text nodes that are seen, with the size that their element is drawn in; charts are scaled by their own width.
    sizes = page.evaluate("""() => {
        const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
        const found = [];
        while (walker.nextNode()) {
            const parent = walker.currentNode.parentElement;
            if (walker.currentNode.textContent.trim() && !parent.closest('svg') && parent.checkVisibility())
                found.push(parseFloat(getComputedStyle(parent).fontSize));
        }
        return found;
    }""")
    charts = page.evaluate("""() => [...document.querySelectorAll('svg.chart')].map(chart => {
        const text = chart.querySelector('text');
        return text.getBoundingClientRect().height;
    })""")

    assert len(sizes) > 200
    assert min(sizes) >= 11
    assert min(charts) >= 9


def test_the_dark_scheme_is_dark_and_keeps_its_contrast(opened):
    ratios = {}
    for scheme in ("light", "dark"):
        page, _, _ = opened("desktop", scheme=scheme)
        paper, ink = page.evaluate("""() => {
            const style = getComputedStyle(document.body);
            const light = colour => {
                const [r, g, b] = colour.match(/[0-9.]+/g).map(Number).map(v => v / 255)
                    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            return [light(style.backgroundColor), light(style.color)];
        }""")
        ratios[scheme] = (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05)
        assert (paper < 0.05) == (scheme == "dark")

    # WCAG 2.1, success criterion 1.4.6: enhanced contrast.
    assert min(ratios.values()) >= 7


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_screenshot_shows_a_whole_page(opened, tmp_path, width, scheme):
    from PIL import Image

    page, _, _ = opened(width, scheme=scheme)

    file = Path(tmp_path / f"{width}-{scheme}.png")
    page.screenshot(path=file, full_page=True)

    with Image.open(file) as picture:
        assert picture.width == WIDTHS[width][0]
        assert picture.height > 3 * WIDTHS[width][1]
        # A page that failed to draw is of one colour.
        assert len(picture.convert("RGB").resize((200, 400)).getcolors(maxcolors=80_000)) > 500

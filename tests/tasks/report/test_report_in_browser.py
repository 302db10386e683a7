"""The report in a real browser: Chromium, headless, from a file."""

from pathlib import Path

import pytest

from tasks.report import render_report

pytestmark = pytest.mark.system

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


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


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_serious_stands_in_the_way_of_anybody(opened, serious_faults, width, scheme):
    page, _, _ = opened(width, scheme=scheme)

    assert serious_faults(page) == []


@pytest.mark.parametrize("width", list(WIDTHS))
def test_no_row_of_a_table_is_hidden_and_none_is_cut(opened, width):
    page, _, _ = opened(width, scheme="light")
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    cut = page.evaluate("""() => [...document.querySelectorAll('.scroll')].filter(
        box => box.scrollHeight > box.clientHeight || box.scrollWidth > box.clientWidth).map(box => box.ariaLabel)""")

    assert cut == []
    # Fairness, whose last row is the worst class.
    rows = page.locator("[aria-label='Fairness and calibration, table'] tbody tr")
    assert rows.count() > 10
    assert page.evaluate(
        """row => {
        const box = row.closest('.scroll').getBoundingClientRect();
        return row.getBoundingClientRect().bottom <= box.bottom + 1;
    }""",
        rows.last.element_handle(),
    )


def test_on_a_phone_every_figure_of_a_row_says_what_it_is(opened):
    page, _, _ = opened("phone", scheme="light")

    labels = page.evaluate("""() => [...document.querySelectorAll('.stack')].map(table => [
        [...table.querySelectorAll('thead th')].slice(1).map(head => head.textContent.replace(/\\s+/g, ' ').trim()),
        [...table.querySelector('tbody tr').querySelectorAll('td')].map(cell => cell.dataset.label)])""")

    assert len(labels) == 8
    assert all(heads == cells for heads, cells in labels)


def test_pictures_and_charts_are_enlarged_by_click_or_key_and_name_their_command(opened):
    page, said, _ = opened("desktop", scheme="light")
    small = page.locator(".reasons button.enlarge img").first
    before = small.bounding_box()["width"]

    small.click()

    assert page.locator("#enlarged-picture img").bounding_box()["width"] > 2 * before
    assert "Made by make demo" in page.inner_text("#enlarged-caption")
    page.keyboard.press("Escape")
    assert not page.locator("#enlarged").is_visible()
    page.locator("#scores button.enlarge").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#enlarged-picture svg").bounding_box()["width"] > 800
    page.click("#enlarged-close")
    assert said == []


def test_print_is_light_whole_and_no_wider_than_its_page(browser, report):
    page = browser.new_page(viewport={"width": 688, "height": 1000}, color_scheme="dark")  # A4 less its margins
    page.goto(report.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    wide = page.evaluate("""() => [...document.querySelectorAll('main table, main pre, main svg, main img')].filter(
        each => each.getBoundingClientRect().right > 690).map(each => each.outerHTML.slice(0, 80))""")
    assert wide == []
    assert page.locator("nav").is_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('details[open]').length") == 0
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()

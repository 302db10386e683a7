"""What an operator sees in Prefect's UI, in a real browser: descriptions, the form of a run, a run's artifacts."""

import shutil

import pytest

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, server_url):
    """Opens a page of the UI and waits for a text on it."""
    context = browser.new_context(viewport={"width": 1400, "height": 1600})
    page = context.new_page()

    def open_page(path, *, until):
        page.goto(f"{server_url.removesuffix('/api')}/{path}", timeout=120_000)
        page.get_by_text(until).first.wait_for(timeout=120_000)
        return page

    yield open_page
    context.close()


def test_a_deployment_describes_itself(visit, digits_run, ask_api):
    deployment = ask_api("deployments/name/augment/digits")

    page = visit(f"deployments/deployment/{deployment['id']}", until="Balance a long-tailed set of handwritten digits")

    text = page.inner_text("body")
    assert "nothing to download" in text
    assert "demo" in text


def test_the_form_of_a_run_is_made_from_the_config(visit, digits_run, ask_api):
    deployment = ask_api("deployments/name/augment/digits")

    page = visit(f"deployments/deployment/{deployment['id']}/run", until="self_guidance")

    text = page.inner_text("body")
    assert "The pretrained diffusion model" in text

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
    """Opens a page of the UI, and waits for a text on it."""
    context = browser.new_context(viewport={"width": 1400, "height": 1600})
    page = context.new_page()

    def open_page(path, *, until):
        page.goto(f"{server_url.removesuffix('/api')}/{path}", timeout=120_000)
        page.get_by_text(until).first.wait_for(timeout=120_000)
        return page

    yield open_page
    context.close()


@pytest.fixture
def digits(ask_api, digits_run):
    """The deployment augment/digits, after a run of it."""
    return ask_api("deployments/name/augment/digits")


def test_a_deployment_describes_itself(visit, digits):
    page = visit(f"deployments/deployment/{digits['id']}?tab=Description", until="Balance a long-tailed set")

    text = page.inner_text("body")
    assert "nothing to download" in text
    assert all(tag in text for tag in ("augment", "demo", "nightly"))


def test_the_form_of_a_run_is_made_from_the_config_and_filled_in_by_the_preset(visit, digits):
    page = visit(f"deployments/deployment/{digits['id']}/run", until="The pretrained diffusion model")

    text = page.inner_text("body")
    assert "Images a group, real and synthetic; none: as many as the commonest has." in text
    assert "Guidance scale w." in text
    assert "overrides" in text
    filled = page.eval_on_selector_all("input, textarea", "fields => fields.map(field => field.value)")
    assert {"digits", "backbones/digits", "0.42"} <= set(filled)


def test_a_runs_verdict_tables_and_picture_are_shown(visit, digits_run, ask_api):
    store, _, flow_run = digits_run
    mine = {"artifacts": {"flow_run_id": {"any_": [flow_run["id"]]}}}
    ids = {artifact["key"]: artifact["id"] for artifact in ask_api("artifacts/filter", mine)}

    samplers = visit(f"artifacts/artifact/{ids['digits-samplers']}", until="evaluations a kept sample")
    assert {"minority", "plain"} <= set(samplers.inner_text("table").split())

    picture = visit(f"artifacts/artifact/{ids['digits-samples']}", until="The same seeds, plain and guided")
    image = picture.locator("img[src^='data:image/png']")
    image.wait_for(timeout=120_000)
    assert image.evaluate("image => image.complete && image.naturalWidth") > 100

    report = visit(f"artifacts/artifact/{ids['digits-report']}", until="The report")
    assert f"{store}/digits/runs/" in report.inner_text("body")
    assert report.locator("a[href^='file://']").count() == 0

    verdict = visit(f"artifacts/artifact/{ids['digits-verdict']}", until="Samplers on the same seeds")
    assert "real + minority" in verdict.inner_text("body")

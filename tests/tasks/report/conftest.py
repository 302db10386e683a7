"""A real browser for the pages of this folder, and a gallery of as many candidates as a test wants."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.storage.store import Store
from tasks.report.gallery import GalleryInputs, write_gallery

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser():
    """Chromium, headless; skips where it or playwright is missing.

    For one file at a time: while it is open an event loop runs in this process, which other tests must not meet.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium in PATH (Debian: apt install chromium)")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def serious_faults():
    """What axe-core finds on a page that is serious or critical: serious_faults(page)."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    axe = Path(package.__file__).with_name("axe.min.js").read_text(encoding="utf-8")

    def find(page):
        page.evaluate(axe)
        violations = page.evaluate("axe.run()")["violations"]
        grave = [each for each in violations if each["impact"] in ("serious", "critical")]
        return [(each["id"], each["nodes"][0]["html"]) for each in grave]

    return find


@pytest.fixture(scope="session")
def gallery_inputs(digits_inputs):
    """Makes inputs of a gallery: gallery_inputs(candidates=20_000, side=8); scores tell a candidate's number."""

    def make(*, candidates, side=8, class_names=tuple("0123456789")):
        report = digits_inputs(candidates=200, class_names=class_names)
        rows = report.metadata
        real = rows[rows["source"] == "real"].assign(unit="real-00-00000")
        drawn = rows[rows["sampler"] == "minority"]
        many = pd.concat([drawn] * (candidates // len(drawn) + 1), ignore_index=True).iloc[:candidates]
        numbers = np.arange(candidates)
        many = many.assign(
            key=[f"s{number:08d}" for number in numbers],
            unit=[f"minority-00-{number // 64:05d}" for number in numbers],
            lof=(numbers * 7919 % candidates).astype(np.float32),  # every value once, in no order
        )
        many.loc[many.index[:3], "knn_distance"] = np.nan
        metadata = pd.concat([real, many], ignore_index=True)
        image_of = dict(zip(drawn["key"], report.images(list(drawn["key"])), strict=True))
        originals, at = list(image_of.values()), dict(zip(many["key"], numbers, strict=True))
        units = {unit: list(keys) for unit, keys in metadata.groupby("unit")["key"]}

        def read_unit(unit):
            if unit.startswith("real"):
                return {
                    key: grown(image, side) for key, image in zip(units[unit], report.images(units[unit]), strict=True)
                }
            return {key: grown(originals[at[key] % len(originals)], side) for key in units[unit]}

        return GalleryInputs(dataset="digits", run_id="digits-0001", metadata=metadata, read_unit=read_unit)

    return make


def grown(image, side):
    return image.repeat(side // 8, axis=0).repeat(side // 8, axis=1)


@pytest.fixture(scope="session")
def write_page():
    """Writes a gallery into a folder; gives the page's file: write_page(inputs, folder)."""

    def write(inputs, folder):
        return Path(write_gallery(inputs, Store(folder), folder="report"))

    return write

"""What is fitted once a recipe, seen from the command line: found by the next run, and mended where it is damaged."""

import pytest

pytestmark = pytest.mark.system

DISCRIMINATOR = {"folds": 2, "classifier": {"steps": 2, "width": 4}}


def test_a_damaged_discriminator_is_named_and_fitted_again_and_the_published_run_stays(augment_tiny, tmp_path):
    settings = {"selection.held_out": {"discriminator": DISCRIMINATOR}, "downstream.seeds": 0, "plan.max_rounds": 1}
    first = augment_tiny(tmp_path, settings)
    assert first.code == 0, first.stderr
    assert first.stderr == ""
    (fitted,) = (tmp_path / "digits" / "fitted").glob("discriminator-*")
    (manifest,) = (tmp_path / "digits" / "runs").glob("*/manifest.json")
    whole, published = fitted.read_bytes(), manifest.read_bytes()
    fitted.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])

    again = augment_tiny(tmp_path, settings)

    assert again.code == 0, again.stderr
    (line,) = again.stderr.splitlines()
    assert line.startswith(f"warning: run {manifest.parent.name}: {fitted} is not what its checksum says")
    assert line.endswith("The discriminator is fitted again.")
    assert fitted.read_bytes() == whole
    assert manifest.read_bytes() == published

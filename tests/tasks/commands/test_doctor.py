import pytest

from tasks.commands.doctor import examine
from tasks.config.presets import list_presets


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The presets' stores are relative: the doctor tries to write them where it is started."""
    monkeypatch.chdir(tmp_path)


def test_the_doctor_finds_nothing_missing_here_and_judges_every_augment_preset():
    findings = examine()

    assert [finding for finding in findings if finding.startswith("MISSING")] == []
    for flow, name, _ in list_presets():
        if flow == "augment":
            assert sum(finding.startswith(f"augment/{name}: ") for finding in findings) == 1
    assert all("\n" not in finding for finding in findings)


def test_the_doctor_names_what_a_preset_lacks():
    (celeba,) = [finding for finding in examine() if finding.startswith("augment/celeba: ")]

    assert celeba == "augment/celeba: ready" or "not ready: " in celeba


def test_the_doctor_names_the_server_runs_will_use(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://head:4200/api")

    assert "ok server: http://head:4200/api" in examine()

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


def test_the_doctor_names_what_a_preset_lacks(tmp_path, monkeypatch):
    # Away from a developer's own data, backbones and downloads.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINORITY_DATA", str(tmp_path / "nothing"))

    found = dict(finding.split(": ", 1) for finding in examine() if finding.startswith("augment/"))

    assert found["augment/digits"] == "ready"
    assert found["augment/celeba"].startswith("not ready: CelebA folder ")
    assert "does not exist" in found["augment/celeba"]


def test_the_doctor_names_the_server_runs_will_use(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://head:4200/api")

    assert "ok server: http://head:4200/api" in examine()

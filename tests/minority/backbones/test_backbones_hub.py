"""Hub ids against a cache laid out as the hub's own client lays it out."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline
from huggingface_hub import constants

from minority.backbones import BackboneError, load_backbone
from minority.backbones.hub import is_hub_id, load_from_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lay_out(cache, repo_id, folder, *, leave_out=()):
    """Put a folder into a cache: content in blobs, links to it in a snapshot, a branch that names the commit."""
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if path.is_file() and path.name not in leave_out:
            blob, link = repo / "blobs" / f"{number:040x}", repo / "snapshots" / COMMIT / path.relative_to(folder)
            blob.write_bytes(path.read_bytes())
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return cache


@pytest.fixture
def pipeline_folder(tiny_pipelines, tmp_path):
    return tiny_pipelines.save(DDIMPipeline(tiny_pipelines.unet(), tiny_pipelines.ddim()), tmp_path / "pipeline")


def predicts_the_same(a, b):
    x_t, t = torch.randn(1, 3, 8, 8), torch.tensor([500])
    return torch.equal(a.denoiser(x_t, t, None).eps, b.denoiser(x_t, t, None).eps)


def test_a_cached_model_is_found_by_its_id(pipeline_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(lay_out(tmp_path / "hub", "someone/faces", pipeline_folder)))

    backbone = load_backbone("someone/faces")

    assert backbone.name == "someone/faces"
    assert predicts_the_same(backbone, load_backbone(pipeline_folder))


def test_a_model_without_subfolders_is_found_too(pipeline_folder, tmp_path):
    # So are the first DDPM models laid out.
    flat = tmp_path / "flat"
    flat.mkdir()
    for name in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        (pipeline_folder / name).rename(flat / Path(name).name)
    cache = lay_out(tmp_path / "hub", "someone/flat", flat)

    assert load_from_hub("someone/flat", cache=cache).image_shape == (3, 8, 8)


def test_a_commit_can_be_asked_for(pipeline_folder, tmp_path):
    cache = lay_out(tmp_path / "hub", "someone/faces", pipeline_folder)

    assert load_from_hub("someone/faces", revision=COMMIT, cache=cache).num_classes is None
    with pytest.raises(BackboneError, match="not in the hub's cache"):
        load_from_hub("someone/faces", revision="f" * 40, cache=cache)


def test_what_is_not_cached_is_told_with_the_remedy_and_nothing_is_fetched(tmp_path):
    with pytest.raises(BackboneError) as error:
        load_from_hub("someone/else", cache=tmp_path / "hub")

    message = str(error.value)
    assert message.startswith("someone/else is neither a folder nor a file here")
    assert str(tmp_path / "hub") in message
    assert "`hf download someone/else` where there is a network, or set download: true" in message
    assert "\n" not in message
    assert not (tmp_path / "hub").exists()


def test_a_half_cached_model_names_the_missing_file_and_the_remedy(pipeline_folder, tmp_path):
    cache = lay_out(
        tmp_path / "hub", "someone/half", pipeline_folder, leave_out=["diffusion_pytorch_model.safetensors"]
    )

    with pytest.raises(BackboneError, match=r"safetensors is missing.*`hf download someone/half` fetches them"):
        load_from_hub("someone/half", cache=cache)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("google/ddpm-cifar10-32", True),
        ("facebook/DiT-XL-2-256", True),
        ("checkpoints/celeba64.pt", False),
        ("a/b/c", False),
        ("/google/ddpm", False),
        ("../model", False),
        ("model", False),
        ("backbones/imagenet.yaml", False),
    ],
)
def test_hub_ids_are_told_from_paths(text, is_one):
    assert is_hub_id(text) == is_one


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download of one model asks for."""

    folder: Path
    requests: list

    def files(self):
        return [str(path.relative_to(self.folder)) for path in sorted(self.folder.rglob("*")) if path.is_file()]

    def do_GET(self):
        path = self.path.split("?")[0]
        self.requests.append(f"{self.command} {path}")
        if path.startswith("/api/models/someone/faces/tree/"):
            tree = [
                {"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": f"{i:040x}"}
                for i, name in enumerate(self.files())
            ]
            return self.answer(json.dumps(tree).encode())
        if path.startswith("/api/models/someone/faces"):
            siblings = [{"rfilename": name} for name in self.files()]
            info = {"id": "someone/faces", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return self.answer(json.dumps(info).encode())
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        if name in self.files():
            return self.answer((self.folder / name).read_bytes(), etag=f"{self.files().index(name):040x}")
        return self.answer(b"", status=404)

    def do_HEAD(self):
        self.do_GET()

    def answer(self, body, *, status=200, etag=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(pipeline_folder):
    """A hub of one model on this machine; gives its address and the requests that it got."""
    (pipeline_folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not wanted")
    handler = type("OneModel", (Hub,), {"folder": pipeline_folder, "requests": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.requests
    server.shutdown()
    server.server_close()


def load_in_a_process_of_its_own(cache, endpoint, *, download):
    # The client reads its environment when it is imported.
    code = (
        "from minority.backbones import load_backbone\n"
        f"print(load_backbone('someone/faces', download={download}).image_shape)"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=400, env=environment, check=False
    )


@pytest.mark.slow
def test_a_model_is_fetched_only_where_that_was_allowed(hub, tmp_path):
    endpoint, requests = hub

    forbidden = load_in_a_process_of_its_own(tmp_path / "hub", endpoint, download=False)
    assert forbidden.returncode != 0
    assert requests == []

    allowed = load_in_a_process_of_its_own(tmp_path / "hub", endpoint, download=True)
    assert "(3, 8, 8)" in allowed.stdout, allowed.stderr
    assert not any("fp16" in request for request in requests)

    requests.clear()
    cached = load_in_a_process_of_its_own(tmp_path / "hub", endpoint, download=False)
    assert "(3, 8, 8)" in cached.stdout, cached.stderr
    assert requests == []

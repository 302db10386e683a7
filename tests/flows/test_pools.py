"""The pools of deploy/ on a real server, and what Prefect's workers make of them for a run."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from yaml import safe_load_all

pytestmark = pytest.mark.system

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
VALUES = {"env": {"PYTHONUNBUFFERED": "1"}}  # what prefect.yaml sets for every deployment


@pytest.fixture
def prepare(prefect_api):
    """Stores a pool, reads it back, and prepares the job of a run as its worker would."""

    async def job(configuration, kind, template):
        async with get_client() as client:
            pool = WorkPoolCreate(name=f"{kind}-{uuid4()}", type=kind, base_job_template=template)
            await client.create_work_pool(pool)
            stored = await client.read_work_pool(pool.name)
            made = await configuration.from_template_and_values(stored.base_job_template, VALUES, client=client)
        made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="rare-faces"), work_pool=stored)
        return made

    def run(configuration, kind, path):
        return asyncio.run(job(configuration, kind, json.loads((DEPLOY / path).read_text())))

    return run


def test_the_docker_pool_starts_a_container_with_a_gpu_and_the_folders(prepare):
    worker = pytest.importorskip("prefect_docker.worker")
    types = pytest.importorskip("docker.types")

    job = prepare(worker.DockerWorkerJobConfiguration, "docker", "docker-pool.json")

    (gpu,) = job.container_create_kwargs["device_requests"]
    assert types.DeviceRequest(**gpu)["Count"] == 1
    assert job.image == "minority-augment:latest"
    assert job.env["MINORITY_DATA"] == "/data"
    assert job.env["PYTHONUNBUFFERED"] == "1"
    assert "/srv/minority/data:/data:ro" in job.volumes
    assert job.command == "prefect flow-run execute"


def test_the_kubernetes_pool_makes_a_job_that_kubernetes_understands(prepare):
    worker = pytest.importorskip("prefect_kubernetes.worker")
    models = pytest.importorskip("kubernetes_asyncio.client")

    manifest = prepare(worker.KubernetesWorkerJobConfiguration, "kubernetes", "kubernetes/pool.json").job_manifest

    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    limits = container["resources"]["limits"]
    limits["nvidia.com/gpu"] = str(limits["nvidia.com/gpu"])  # the client spells quantities as words
    assert understood(models, manifest, "V1Job") == manifest
    assert limits["nvidia.com/gpu"] == "1"
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert {"name": "MINORITY_DATA", "value": "/data"} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "minority-store", "optional": True}}]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_kubernetes_worker_is_described_in_kubernetes_own_words():
    models = pytest.importorskip("kubernetes_asyncio.client")
    documents = list(safe_load_all((DEPLOY / "kubernetes" / "worker.yaml").read_text()))

    kinds = [document["kind"] for document in documents]
    assert kinds == ["Namespace", "ServiceAccount", "Role", "RoleBinding", "Deployment"]
    for document in documents:
        assert understood(models, document, f"V1{document['kind']}") == document


def understood(models, document, kind):
    """What Kubernetes' own client keeps of a document: fields that it does not know get lost."""

    class Answer:
        data = json.dumps(document)

    async def parse():
        async with models.ApiClient() as api:
            return api.sanitize_for_serialization(api.deserialize(Answer, kind))

    return asyncio.run(parse())

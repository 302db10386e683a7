"""What a run needs to write: its dataset's folder, as deploy/s3-policy.json grants it; a unit: its run's folder."""

import json
from pathlib import Path

import pytest

from datasets.storage.store import StoreError
from tasks.augment.planning import plan_real
from tasks.augment.units import make_unit
from tasks.checks import check_inputs
from tasks.inputs.run_store import open_run_store
from tasks.inputs.workspace import open_workspace

boto3 = pytest.importorskip("boto3")
s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

POLICY = Path(__file__).resolve().parents[3] / "deploy" / "s3-policy.json"
BUCKET, PREFIX = "bucket", "minority"


@pytest.fixture(scope="module")
def endpoint():
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def become(endpoint, monkeypatch):
    """Makes this process's S3 client somebody with a policy's rights; and a context in which rights are enforced."""
    from moto.core.authorization import enable_iam_authentication

    owner = {"aws_access_key_id": "owner", "aws_secret_access_key": "owner", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **owner).create_bucket(Bucket=BUCKET)
    iam = boto3.client("iam", endpoint_url=endpoint, **owner)
    users = iter(range(10))

    def become(policy):
        name = f"user-{next(users)}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        s3fs.S3FileSystem.clear_instance_cache()

    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield become, enable_iam_authentication
    s3fs.S3FileSystem.clear_instance_cache()


def policy(written):
    """The policy that ships with the project, filled in; writing is allowed below `written` alone."""
    text = POLICY.read_text().replace("BUCKET", BUCKET).replace("PREFIX", PREFIX).replace("DATASET", "digits")
    content = json.loads(text)
    (write,) = [part for part in content["Statement"] if part["Sid"] == "WriteTheDataset"]
    write["Resource"] = f"arn:aws:s3:::{BUCKET}/{PREFIX}/{written}/*"
    return content


def test_a_run_writes_its_datasets_folder_and_a_unit_its_runs_folder(become, tiny_config):
    become_user, enforcing = become
    config = tiny_config(store=f"s3://{BUCKET}/{PREFIX}", run_id="first")
    publisher, maker, stranger = policy("digits"), policy("digits/runs/first"), policy("digits/runs/second")

    become_user(publisher)
    with enforcing():
        check_inputs(config)
        workspace = open_workspace(config)
        plan = plan_real(config.plan, workspace.real)[0]
    become_user(maker)
    with enforcing():
        receipt = make_unit(plan, workspace, open_run_store(workspace.run))
        with pytest.raises(StoreError, match=r"digits/latest\.json cannot be written"):
            workspace.store.write("digits/latest.json", b"{}")
    become_user(stranger)
    with enforcing(), pytest.raises(StoreError, match=r"cannot be written.*give this user write access"):
        make_unit(plan_real(config.plan, workspace.real)[1], workspace, open_run_store(workspace.run))

    assert receipt.unit == plan.unit

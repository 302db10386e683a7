import pytest

from datasets.storage.store import Store
from datasets.storage.store_url import holds_secret

SECRETS = [
    "s3://AKIAEXAMPLE:wJalr/XUtn+FEMI@bucket/runs",
    "s3://key:secret@bucket",
    "sftp://user:password@host/runs",
    "https://host/runs?X-Amz-Credential=AKIA&X-Amz-Signature=0a1b",
    "https://account.blob.example/runs?sv=2024&sig=0a1b",
    "https://host/weights.pt?token=0a1b",
    "simplecache::s3://key:secret@bucket/runs",
]
PLAIN = [
    "runs",
    "/srv/runs",
    "s3://bucket/prefix",
    "s3://bucket/a:b@c",
    "sftp://user@host/runs",
    "http://host:8080/runs",
    "abfs://container@account.dfs.example/runs",
    "https://host/weights.pt?download=true",
    "Licence: see https://host: ask me@host",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_url_with_credentials_is_refused_without_repeating_them(url):
    with pytest.raises(ValueError, match="store is a URL that holds credentials") as refusal:
        Store(url)

    assert not any(secret in str(refusal.value) for secret in ("wJalr", "secret@", "password@", "0a1b", "AKIAEXAMPLE"))


@pytest.mark.parametrize("url", PLAIN)
def test_a_url_without_credentials_is_none_of_them(url):
    assert not holds_secret(url)

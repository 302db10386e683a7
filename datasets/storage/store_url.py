"""URLs and secrets: a URL is written into logs, configs and manifests, so it must hold none."""

import re

#: scheme://user:password@..., or a query such as ?X-Amz-Signature=... or &token=...
_SECRET = re.compile(
    r"://[^/\s]*:[^@\s]*@|://\S*[?&][^=\s]*(secret|signature|sig|token|password|credential)[^=\s]*=", re.IGNORECASE
)


def holds_secret(text: str) -> bool:
    """Whether a URL in the text holds a password, a key or a signature."""
    return _SECRET.search(text) is not None


def require_no_secret(what: str, text: str) -> None:
    """Refuse a URL that holds credentials, without repeating it.

    Args:
        what: What the URL is, for the error, e.g. "store".
        text: The URL.

    Raises:
        ValueError: It holds some.
    """
    if holds_secret(text):
        raise ValueError(
            f"{what} is a URL that holds credentials, which logs and manifests would keep; take them out and give them "
            "by the backend's environment variables, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )

"""An object store of the tests' own: moto's S3 on a free port, to which obstore is led by the environment."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of it; bucket `models` is there."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    url = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="models")
    yield client
    patch.undo()
    server.stop()

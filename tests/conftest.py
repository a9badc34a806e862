"""Fixtures for all tests: an S3 server on loopback, real where it is installed."""

from __future__ import annotations

import copyreg
import importlib.util
import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
S3_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


def _tool(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


s3_server = _tool("s3_server")


@pytest.fixture(scope="session", autouse=True)
def _own_user_cache(tmp_path_factory):
    """Keep what is remembered of foreign shards out of the user's own cache, and out of other runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        yield


@pytest.fixture
def plain_pickles():
    """Pickle exceptions as Python does. Importing Dask's distributed makes all that are known then carry causes and
    tracebacks.
    """
    others = {kind: copyreg.dispatch_table.pop(kind) for kind in list(copyreg.dispatch_table)
              if isinstance(kind, type) and issubclass(kind, BaseException)}  # fmt: skip
    yield
    copyreg.dispatch_table.update(others)


@dataclass
class S3:
    """A fresh prefix of a bucket: what a test may write to."""

    url: str
    storage_options: dict
    server: str

    @property
    def is_real(self) -> bool:
        """Whether a production server answers, and not moto's mock."""
        return "moto" not in self.server


@dataclass
class Proxied(S3):
    proxy: object


@pytest.fixture(scope="session")
def _s3_environment(pytestconfig):
    """Yield the environment of an S3 server: the one that the environment names, if it is on loopback; the one that
    ``make s3-server`` started; otherwise one of its own, that ends with the tests.
    """
    given = {name: os.environ[name] for name in (*S3_VARIABLES, "SHARDSTREAM_S3_SERVER") if name in os.environ}
    folder = None
    if given.get("AWS_ENDPOINT_URL", "").startswith(("http://127.0.0.1", "http://localhost")):
        environment = {"AWS_DEFAULT_REGION": "us-east-1", "SHARDSTREAM_S3_SERVER": given["AWS_ENDPOINT_URL"], **given}
    else:
        environment = s3_server.running(s3_server.DEFAULT_DIR)
    if environment is None:
        folder = Path(tempfile.mkdtemp(prefix="shardstream-s3-"))
        environment = s3_server.start(folder)
    pytestconfig.stash[SERVER] = environment["SHARDSTREAM_S3_SERVER"]
    _make_bucket(environment)
    yield environment
    if folder is not None:
        s3_server.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


SERVER = pytest.StashKey[str]()
BUCKET = f"shardstream-{uuid.uuid4().hex[:12]}"


def _make_bucket(environment: dict[str, str]) -> None:
    import boto3

    boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name=environment["AWS_DEFAULT_REGION"],
                 aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
                 aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"]).create_bucket(Bucket=BUCKET)  # fmt: skip


@pytest.fixture
def s3(_s3_environment, monkeypatch) -> S3:
    """A fresh S3 prefix, its options, and the environment set so that none are needed."""
    for name in S3_VARIABLES:
        monkeypatch.setenv(name, _s3_environment[name])
    options = {"endpoint_url": _s3_environment["AWS_ENDPOINT_URL"], "key": _s3_environment["AWS_ACCESS_KEY_ID"],
               "secret": _s3_environment["AWS_SECRET_ACCESS_KEY"]}  # fmt: skip
    return S3(f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}", options, _s3_environment["SHARDSTREAM_S3_SERVER"])


@pytest.fixture(scope="session")
def _proxy(_s3_environment):
    from tests.fault_proxy import RunningProxy

    proxy = RunningProxy(_s3_environment["AWS_ENDPOINT_URL"])
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(s3, _proxy):
    """The same S3 prefix through a proxy that delays and spoils requests as ``proxied.proxy.plan()`` says."""
    _proxy.plan()
    return Proxied(s3.url, {**s3.storage_options, "endpoint_url": _proxy.url}, s3.server, _proxy)


def pytest_collection_modifyitems(items):
    """Mark every test that uses the server, so that ``-m 'not s3'`` leaves them out."""
    for item in items:
        if {"s3", "proxied"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.s3)


def pytest_terminal_summary(terminalreporter, config):
    """Say which S3 server the tests ran against: a mock proves less."""
    if (server := config.stash.get(SERVER, None)) is not None:
        terminalreporter.write_line(f"S3 tests ran against {server}.")


def pytest_sessionfinish(session):
    """In one of several processes, leave the server's name for the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["s3_server"] = session.config.stash.get(SERVER, None)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    if (server := getattr(node, "workeroutput", {}).get("s3_server")) is not None:
        node.config.stash[SERVER] = server

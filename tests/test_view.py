"""``shardstream view``: what the pages say, who may see them, and how a real browser shows them."""

from __future__ import annotations

import http.client
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shardstream as ss
from shardstream.look import Looker
from shardstream.view.server import Server
from shardstream.view.stats import field_stats

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ss.Schema(x=ss.Sparse(64), w=ss.Sparse(16, "float32"), tokens=ss.Ragged("uint16"), text=ss.Text(), raw=ss.Bytes(),
                   img=ss.Dense("uint8", (8, 8, 3)), score=ss.Dense("float32"), y=ss.Dense("int64"))  # fmt: skip
HOSTILE = "<script>document.title='run'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    url, rng = str(tmp_path_factory.mktemp("view")), np.random.default_rng(0)
    with ss.ShardWriter(url, schema=SCHEMA, producer="maker") as writer:
        for row in range(50):
            writer.write({"x": [1, 5, 60], "w": ([2], [0.5]), "tokens": np.arange(row, dtype=np.uint16), "text": HOSTILE if row == 0 else f"text {row}",
                          "raw": b"\x00<b>", "img": np.full((8, 8, 3), row, np.uint8), "score": rng.normal(), "y": row % 3})  # fmt: skip
            if row == 24:
                writer.flush()
    return url


@pytest.fixture
def site(dataset):
    with running(dataset) as server:
        yield server


class running:
    """A server in a thread of this process."""

    def __init__(self, url: str, **options):
        self._server = Server(url, **options)

    def __enter__(self) -> Server:
        threading.Thread(target=self._server.serve, daemon=True).start()
        return self._server

    def __exit__(self, *exception) -> None:
        self._server.close()


def get(site: Server, path: str, host: str | None = None, method: str = "GET") -> tuple[int, bytes, dict]:
    """Return status, body and headers of a page; ``path`` is below the link."""
    _, _, place, token = site.link.rstrip("/").split("/")
    connection = http.client.HTTPConnection(place, timeout=20)
    connection.request(method, path if path.startswith("/") else f"/{token}/{path}", headers={"Host": host or place})
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def test_the_overview_tells_versions_fields_and_shards(site, dataset):
    status, body, headers = get(site, "")
    page = body.decode()
    assert status == 200 and "50 samples, 2 shards" in page and "version 3" in page
    assert all(f"<h3>{name} " in page for name in SCHEMA) and page.count("<svg") == 10
    assert all(url in page for url in ss.Dataset(dataset).shards) and "maker" in page
    assert "3 distinct" in page and "elements in a row: from 0 to 49" in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_pages_of_samples_show_every_row_once(site):
    rows = []
    for number in range(3):
        page = get(site, f"samples/{number}")[1].decode()
        rows += re.findall(r'id="row-(\d+)"', page)
    assert rows == [str(row) for row in range(50)]
    assert get(site, "samples/999")[1] == get(site, "samples/2")[1]


def test_texts_cannot_become_markup(site):
    """A dataset is somebody else's data: no text of it may be taken for HTML."""
    page = get(site, "samples/0")[1].decode()
    assert "&lt;script&gt;" in page and "<script" not in page and "<img src=x" not in page and "<b>" not in page


def test_images_come_as_png(site):
    page = get(site, "samples/0")[1].decode()
    (source,) = set(re.findall(r'src="([^"]+/image/7/\d+)"', page))
    status, body, headers = get(site, source)
    assert status == 200 and headers["Content-Type"] == "image/png"
    assert np.array(Image.open(io.BytesIO(body))).tolist() == np.full((8, 8, 3), 7).tolist()


@pytest.mark.parametrize("path", ["/", "/wrong/", "/wrong/samples/0", "//", "/../", "/%2e%2e/etc/passwd"])
def test_nothing_is_told_without_the_token(site, path):
    status, body, _ = get(site, path)
    assert status == 403 and b"text" not in body.replace(b"text/plain", b"")


def test_another_host_name_is_refused(site):
    """A page elsewhere whose name was made to lead to 127.0.0.1 gets nothing, even with the token."""
    assert get(site, "", host="evil.example:80")[0] == 403
    assert get(site, "", host=f"localhost:{site.link.split(':')[2].split('/')[0]}")[0] == 200


@pytest.mark.parametrize("path", ["samples", "samples/-1", "samples/x", "samples/1/2", "image/0/99", "image/0", "nope", "samples/" + "9" * 40])
def test_other_paths_are_not_found(site, path):
    assert get(site, path)[0] == 404


@pytest.mark.parametrize("path", ["image/99/0", "image/0/0"])
def test_what_is_no_image_is_an_error_page(site, path):
    status, body, _ = get(site, path)
    assert status == 500 and b"can't be shown" in body


def test_it_is_read_only_and_on_loopback(site):
    assert get(site, "", method="POST")[0] == get(site, "", method="DELETE")[0] == 501
    assert get(site, "", method="HEAD")[:2] == (200, b"")
    assert site.link.startswith("http://127.0.0.1:")


def test_a_damaged_block_is_said_on_the_page(dataset, tmp_path):
    """The page names shard and block, and the server goes on."""
    shutil.copytree(dataset, tmp_path / "copy")
    path = Path(ss.Dataset(str(tmp_path / "copy")).shards[0])
    data = bytearray(path.read_bytes())
    data[data.index(b"text 1")] ^= 1
    path.write_bytes(data)
    with running(str(tmp_path / "copy")) as site:
        status, body, _ = get(site, "samples/0")
        assert status == 500 and path.name.encode() in body
        assert get(site, "samples/2")[0] == 200


def test_a_sample_that_cannot_be_decoded_leaves_its_neighbours(tmp_path):
    """Its error stands in its place; half a surrogate pair is shown as an escape."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("1.txt", b"\xff"), ("2.pyd", b"code"), ("3.json", b'"\\ud800"'), ("4.txt", b"last")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with running(str(tmp_path / "a.tar")) as site:
        status, body, _ = get(site, "samples/0")
    assert status == 200 and body.count(b"<article") == 4
    assert all(part in body for part in (b"UnicodeDecodeError", b"would run code", b"\\ud800", b"last"))


def test_webdataset_shards_and_empty_datasets_have_pages(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("1.txt", b"hello"), ("1.cls", b"3"), ("2.txt", b"more"), ("2.cls", b"4")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with running(str(tmp_path / "a.tar")) as site:
        assert "bytes of a member: from 4 to 5" in get(site, "")[1].decode() and "2 distinct" in get(site, "")[1].decode()
        assert b"hello" in get(site, "samples/0")[1]
    ss.ShardWriter(str(tmp_path / "empty"), schema=SCHEMA, producer="p").close()
    with running(str(tmp_path / "empty")) as site:
        assert b"0 samples" in get(site, "")[1] and get(site, "samples/0")[0] == 200


def test_it_works_on_s3(s3):
    with ss.ShardWriter(f"{s3.url}/d", schema=ss.Schema(text=ss.Text()), storage_options=s3.storage_options) as writer:
        writer.write({"text": "from afar"})
    with running(f"{s3.url}/d", storage_options=s3.storage_options) as site:
        assert b"from afar" in get(site, "samples/0")[1] and s3.storage_options["secret"].encode() not in get(site, "")[1]


@pytest.mark.parametrize("values, counts", [
    (np.arange(60), [2] * 30), (np.array([-5, -5, 24]), [2] + [0] * 28 + [1]), (np.array([7, 7]), [2]),
    (np.array([-(2**63), 2**63 - 1]), [1] + [0] * 28 + [1]), (np.array([0, 2**64 - 1], np.uint64), [1] + [0] * 28 + [1]),
], ids=str)  # fmt: skip
def test_histograms_of_integers_count_each_value_once(tmp_path, values, counts):
    """Bins hold equally many integers, over the whole range of 64 bits."""
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(t=ss.Ragged(values.dtype.name))) as writer:
        writer.write({"t": values})
    _, element = field_stats(Looker(str(tmp_path))).fields[0].distributions
    assert element.counts == counts


@pytest.mark.parametrize("values", [[0.3, 0.1 + 0.2], [0.0, 5e-324], [-5e-324, 0.0], [-1e16 - 2, -1e16], [1e300, np.nextafter(1e300, 2e300)], [1.7e18] * 2, [7.0, 7.0]], ids=str)
def test_floats_too_near_each_other_for_bins_are_one(tmp_path, values):
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(a=ss.Dense("float64"))) as writer:
        for value in values:
            writer.write({"a": value})
    assert field_stats(Looker(str(tmp_path))).fields[0].distributions[0].counts == [2]


def test_floats_that_are_no_numbers_are_left_out(tmp_path):
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(a=ss.Dense("float64"), b=ss.Dense("float32"))) as writer:
        for value in (np.nan, np.inf, -1.7e308, 1.7e308, 0.0):
            writer.write({"a": value, "b": np.float32("nan")})
    a, b = field_stats(Looker(str(tmp_path))).fields
    assert sum(a.distributions[0].counts) == 3 and b.distributions[0].summary == "none"


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_serves_until_interrupted(dataset, as_json):
    arguments = [sys.executable, "-m", "shardstream", "view", dataset, *(["--json"] if as_json else [])]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    link = json.loads(line)["link"] if as_json else re.search(r"http://\S+", line)[0]
    connection = http.client.HTTPConnection(link.split("/")[2], timeout=20)
    connection.request("GET", "/" + link.split("/", 3)[3])
    assert connection.getresponse().status == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


# -- a real browser -------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-sync", "--hide-scrollbars", "--window-size=1000,1800"]  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_a_browser_shows_plots_texts_and_images(site, tmp_path):
    """Headless Chromium lays the pages out: no script ran, every image loaded, and bars have their colour."""

    def browse(path: str, *arguments: str) -> str:
        done = subprocess.run([CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile", *arguments, site.link + path],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120, text=True)  # fmt: skip
        assert done.returncode == 0
        return done.stdout

    page = browse("samples/0", "--dump-dom")
    assert "<title>run</title>" not in page and "&lt;script&gt;" in page and page.count("<article") == 20
    browse("", f"--screenshot={tmp_path}/overview.png")
    browse("samples/2", f"--screenshot={tmp_path}/samples.png")
    overview, samples = (np.array(Image.open(tmp_path / f"{name}.png").convert("RGB")).reshape(-1, 3) for name in ("overview", "samples"))
    assert (overview == (0x3B, 0x6F, 0xD4)).all(1).sum() > 5000  # bars
    for row in range(40, 42):  # images whose pixels are all of one grey
        assert (samples == row).all(1).sum() > 500

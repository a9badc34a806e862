"""Finished files put to S3: one PUT, or above 1 GB in parts, each sent with its CRC-32C and repeated by itself.

fsspec's own upload in parts repeats nothing and sends no checksums. A part that fails for good, or a Ctrl-C, aborts the
upload; what a kill leaves is invisible but is paid for, until :func:`abort_uploads` takes it away.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

from shardstream._native.crc32c import crc32c
from shardstream.config import RetryPolicy
from shardstream.errors import StorageError
from shardstream.storage.clients import run
from shardstream.storage.retry import attempt, code_of
from shardstream.storage.urls import redact

MULTIPART_NBYTES = 10**9  # larger files go up in parts; a single PUT may hold 5 GB at most
PART_NBYTES = 32 << 20
MAX_PARTS = 10_000  # S3's limit
PARALLEL_PARTS = 4
# How a store says that it does not know checksums. (Ceph before 18 says nothing, and ignores them.)
CHECKSUM_REFUSED = {"InvalidRequest", "InvalidArgument", "NotImplemented", "XNotImplemented", "MalformedXML"}


def put_file(client: Any, url: str, path: str, retry: RetryPolicy) -> None:
    """Put a local file to an S3 URL, whole or not at all.

    Raises:
        FileNotFoundError: There is no such bucket.
        StorageRefused, StorageError: As ``attempt``; nothing stands at ``url`` that did not before.
    """
    nbytes, upload = os.path.getsize(path), _Upload(client, url, retry)
    with open(path, "rb") as file:
        if nbytes <= MULTIPART_NBYTES:
            upload.put(file.read())
        else:
            upload.put_parts(file.fileno(), nbytes)


def abort_uploads(client: Any, url: str, retry: RetryPolicy, older_than_s: float, dry_run: bool = False) -> int:
    """Abort (or with ``dry_run`` only count) the uploads in parts below an S3 URL that began more than ``older_than_s``
    ago by the store's clock.

    Returns how many those were. A shard's upload takes minutes, so whoever gives a day meets no living one.
    """
    bucket, _, prefix = url.partition("://")[2].partition("/")
    aborted, marker = 0, {}
    while True:
        found = _call(client, retry, f"listing unfinished uploads below {redact(url)}", "list_multipart_uploads",
                      Bucket=bucket, Prefix=prefix.rstrip("/") + "/" if prefix else "", **marker)  # fmt: skip
        now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        for upload in found.get("Uploads", []):
            if (now - upload["Initiated"]).total_seconds() > older_than_s:
                if not dry_run:
                    _abort(client, retry, bucket, upload["Key"], upload["UploadId"])
                aborted += 1
        if not found.get("IsTruncated"):
            return aborted
        marker = {"KeyMarker": found["NextKeyMarker"], "UploadIdMarker": found["NextUploadIdMarker"]}


def checksum(data: Any) -> str:
    """Return the CRC-32C of bytes as S3 writes it."""
    return base64.b64encode(crc32c(data).to_bytes(4, "big")).decode()


def with_checksum(send: Callable[[dict], Any], data: Any) -> Any:
    """Return ``send(options)``, the options being the checksum of ``data``, or none where the store refuses it."""
    try:
        return send({"ChecksumCRC32C": checksum(data)})
    except Exception as error:
        if code_of(error) not in CHECKSUM_REFUSED:
            raise
        return send({})


class _Upload:
    def __init__(self, client: Any, url: str, retry: RetryPolicy):
        self._client, self._retry, self._what = client, retry, f"writing {redact(url)}"
        self._bucket, _, self._key = url.partition("://")[2].partition("/")
        self._is_checked = True  # until the store refuses a checksum

    def put(self, data: bytes) -> None:
        def send(options: dict) -> None:
            self._call("put_object", len(data), Body=data, **options)

        with_checksum(send, data)

    def put_parts(self, descriptor: int, nbytes: int) -> None:
        part_nbytes = max(PART_NBYTES, -(-nbytes // MAX_PARTS))
        begins = range(0, nbytes, part_nbytes)

        def begin(options: dict) -> str:
            self._is_checked = bool(options)
            return self._call("create_multipart_upload",
                              **({"ChecksumAlgorithm": "CRC32C"} if options else {}))["UploadId"]  # fmt: skip

        upload = with_checksum(begin, b"")

        def put_part(number: int) -> dict:
            part = os.pread(descriptor, part_nbytes, begins[number])
            options = {"ChecksumCRC32C": checksum(part)} if self._is_checked else {}
            answer = self._call("upload_part", len(part), UploadId=upload, PartNumber=number + 1, Body=part, **options)
            return {"PartNumber": number + 1, "ETag": answer["ETag"], **options}

        try:
            with ThreadPoolExecutor(PARALLEL_PARTS, thread_name_prefix="shardstream-part") as pool:
                parts = list(_in_order(pool, put_part, len(begins)))
            self._complete(upload, parts, nbytes)
        except BaseException:
            try:
                _abort(self._client, self._retry, self._bucket, self._key, upload)
            except StorageError:
                pass  # the first error is the one to tell; gc finds the upload
            raise

    def _complete(self, upload: str, parts: list[dict], nbytes: int) -> None:
        try:
            self._call("complete_multipart_upload", nbytes, UploadId=upload, MultipartUpload={"Parts": parts})
        except FileNotFoundError:  # no such upload: a try whose answer was lost may have completed it
            if self._call("head_object")["ContentLength"] != nbytes:
                raise

    def _call(self, method: str, nbytes: int = 0, **options: Any) -> Any:
        return _call(self._client, self._retry, self._what, method, nbytes, Bucket=self._bucket, Key=self._key,
                     **options)  # fmt: skip


def _in_order(pool: ThreadPoolExecutor, put_part: Callable[[int], dict], count: int):
    """Yield the parts in order; after one that failed no other is begun."""
    futures = [pool.submit(put_part, number) for number in range(count)]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _call(client: Any, retry: RetryPolicy, what: str, method: str, nbytes: int = 0, **options: Any) -> Any:
    return attempt(retry, what, lambda timeout_s: run(client, "call_s3", method, timeout_s=timeout_s, **options), nbytes=nbytes)


def _abort(client: Any, retry: RetryPolicy, bucket: str, key: str, upload: str) -> None:
    try:
        _call(client, retry, f"aborting an upload of s3://{bucket}/{key}", "abort_multipart_upload", Bucket=bucket,
              Key=key, UploadId=upload)  # fmt: skip
    except FileNotFoundError:
        pass  # somebody else did

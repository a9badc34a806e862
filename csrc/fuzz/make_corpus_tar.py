"""Write the seeds of fuzz_tar: ``python csrc/fuzz/make_corpus_tar.py``. Same bytes on every run."""

import io
import tarfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus" / "tar"


def archive(format: int, files: dict[str, bytes], **attributes) -> bytes:
    """Return a tar of ``files`` without its end blocks' padding to 10,240."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, pax_headers=attributes.pop("pax_headers", {})) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            tar.addfile(info, io.BytesIO(data) if info.type == tarfile.REGTYPE else None)
    data = out.getvalue().rstrip(b"\0")
    return data + bytes(-len(data) % 512 + 1024)


samples = {"d.x/a.jpg": b"jpeg" * 200, "d.x/a.cls": b"3", "UP.JPG": b"", "__m__/x.json": b"{}"}
long_name = {"d/" * 60 + "n" * 90 + ".txt": b"text", "é.txt": b"1"}
seeds = {
    "ustar": archive(tarfile.USTAR_FORMAT, samples),
    "pax_long": archive(tarfile.PAX_FORMAT, long_name, mtime=1.5),
    "pax_global": archive(tarfile.PAX_FORMAT, {"a.b": b"12"}, pax_headers={"comment": "seed", "path": "g.h"}),
    "gnu_long": archive(tarfile.GNU_FORMAT, long_name),
    "links": archive(tarfile.USTAR_FORMAT, {"l.txt": b""}, type=tarfile.SYMTYPE, linkname="a.txt"),
    "base256": archive(tarfile.GNU_FORMAT, {"b.bin": b"x"}, mtime=2**34, uid=2**31),
    "no_end": archive(tarfile.USTAR_FORMAT, samples)[:-1024],
    "empty": bytes(1024),
}
v7 = bytearray(seeds["ustar"])
for at in range(0, len(v7), 512):
    if v7[at + 257 : at + 262] == b"ustar":
        v7[at + 148 : at + 156], v7[at + 156], v7[at + 257 : at + 265] = b" " * 8, 0, bytes(8)
        v7[at + 148 : at + 156] = b"%06o\0 " % sum(v7[at : at + 512])
seeds["v7"] = bytes(v7)

CORPUS.mkdir(parents=True, exist_ok=True)
for name, data in seeds.items():
    (CORPUS / name).write_bytes(b"\x81" + data)  # repair checksums; cut in the middle

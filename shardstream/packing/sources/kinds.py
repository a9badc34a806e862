"""The sources that a configuration can name: ``kind`` -> the source and its settings."""

from shardstream.packing.sources.csv import CsvSettings, CsvSource
from shardstream.packing.sources.idx import IdxSettings, IdxSource
from shardstream.packing.sources.images import ImagesSettings, ImagesSource
from shardstream.packing.sources.jsonl import JsonlSettings, JsonlSource
from shardstream.packing.sources.libsvm import LibsvmSettings, LibsvmSource
from shardstream.packing.sources.records import RecordsSettings, RecordsSource
from shardstream.packing.sources.tables import (
    HfSettings,
    HfSource,
    ParquetSettings,
    ParquetSource,
)
from shardstream.packing.sources.text import TextSettings, TextSource
from shardstream.packing.sources.webdataset import WebdatasetSettings, WebdatasetSource

SOURCES = {
    "text": (TextSource, TextSettings),
    "jsonl": (JsonlSource, JsonlSettings),
    "csv": (CsvSource, CsvSettings),
    "parquet": (ParquetSource, ParquetSettings),
    "hf": (HfSource, HfSettings),
    "libsvm": (LibsvmSource, LibsvmSettings),
    "images": (ImagesSource, ImagesSettings),
    "idx": (IdxSource, IdxSettings),
    "webdataset": (WebdatasetSource, WebdatasetSettings),
    "records": (RecordsSource, RecordsSettings),
}

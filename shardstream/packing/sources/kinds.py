"""The sources that a configuration can name: ``kind`` -> the source and its settings."""

from shardstream.packing.sources.records import RecordsSettings, RecordsSource
from shardstream.packing.sources.text import TextSettings, TextSource

SOURCES = {
    "text": (TextSource, TextSettings),
    "records": (RecordsSource, RecordsSettings),
}

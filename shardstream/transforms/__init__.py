"""Transforms of stream rows, in C where they work on arrays.

``ShardStream(transform=)`` takes a function of one sample, a dict, or, marked ``@ss.batched``, of the
columns of any number of rows. It never learns what else is in a batch, so that rows are the same for
every batch size and number of workers. Marked ``@ss.placed``, too, it gets a :class:`Place` as its second
argument, and may be random by that and by nothing else: then a resumed run repeats what it did.

================== ===========================================================================
transform          makes
================== ===========================================================================
``DecodeImages``   uint8 pixels of encoded images, on threads
``Images``         float planes of uint8 images, cropped and flipped, in one pass
``Standardize``    float32 ``(values - mean) / std`` of a dense column
``Tokenize``       token ids of a text column
``Hash``           hashed n-grams of a text column
``HashCategories`` hashed ``name=value`` features of several columns
================== ===========================================================================

They are batched transforms, an instance each. Several are joined by a function::

    @ss.batched
    @ss.placed
    def transform(columns, place):
        return tokens(images(columns, place))
"""

from shardstream.transforms.decoding import DecodeImages
from shardstream.transforms.images import Images
from shardstream.transforms.marks import Place, batched, placed
from shardstream.transforms.numbers import Standardize
from shardstream.transforms.texts import Hash, HashCategories, Tokenize

__all__ = ["DecodeImages", "Hash", "HashCategories", "Images", "Place", "Standardize", "Tokenize", "batched", "placed"]

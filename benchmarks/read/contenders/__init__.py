"""What is compared, and the module of each. A module has these, and loads what its contender loads when it is imported:

* ``write(workload, samples, folder, is_compressed)`` stores samples in a new local folder, by the contender's own writer;
* ``loader(contender, workload, folder, num_workers)`` returns an iterable of batches that is iterated once an epoch;
* ``remote_loader(contender, workload, url, scratch)``, where it reads from S3: an iterable of one epoch, which may cache in ``scratch``.
"""

MODULES = {
    "ours": "ours", "ours_streamed": "ours", "webdataset": "webdataset_", "mosaicml": "mosaicml", "litdata": "litdata_",
    "hf_arrow": "hf_datasets", "hf_numpy": "hf_datasets", "limit": "limit",
}  # fmt: skip
STORED_AS = {"ours_streamed": "ours", "hf_numpy": "hf_arrow"}  # these read what the other has written
REMOTE = ("ours", "webdataset", "mosaicml", "litdata")

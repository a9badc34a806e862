"""One module a contender. Each has NAME, ``write(workload, num_samples, folder)`` and
``loader(workload, folder, num_workers)``, which returns an iterable of batches that is iterated once an epoch; an import of it
loads what the contender loads. ``folder`` is local, or of ours an S3 URL, too.
"""

ALL = ("ours", "webdataset_", "mosaicml", "litdata_", "hf_datasets", "limit")

"""A dataset as pages on this machine: versions, shards, statistics of fields, samples (``shardstream view``).

``stats`` looks at some blocks, ``plots`` draws SVG, ``pages`` writes HTML, ``server`` answers requests.
"""

"""How fast one's own shards are read on this machine, and what bounds it (``shardstream bench``).

``run`` reads and measures, ``limits`` measures the machine, ``advice`` names the stage that bounds, ``trace`` and
``plot`` write what was seen to files.
"""

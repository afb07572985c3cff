"""Blocks of work on several processes: what crosses is data in a schema of ours, and what comes back is checked before it counts.

``crew`` hands blocks out, whoever carries them; ``ray_workers`` has Ray carry them; ``member`` is what runs in a worker's process. A verb
brings a ``Bench``: the model and what it needs to measure a block, made in each worker from the same settings as here.
"""

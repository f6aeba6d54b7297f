"""The state of one operating room, owned by the pipeline thread; commands/ act on it, pipeline.py drives it."""

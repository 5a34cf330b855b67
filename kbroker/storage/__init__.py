"""One broker's disk: segments, indexes, checkpoints, recovery, flushing. No asyncio, no network, no cluster."""

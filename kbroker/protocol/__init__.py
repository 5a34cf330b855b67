"""Bytes <-> objects: wire types, message schemas, frames, record batches, compression. No I/O, no clock, no state."""

"""Metrics, logs, traces. Imports nothing of ours."""

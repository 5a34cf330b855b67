"""Log lines. Imports nothing of ours."""

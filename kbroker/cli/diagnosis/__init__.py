"""What `kbroker doctor` looks at: one address in `probe`, then the cluster behind it in `walk`. Knows no terminal."""

from __future__ import annotations

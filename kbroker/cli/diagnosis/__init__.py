"""What `kbroker doctor` looks at: one address in `probe`, its certificate in `strict`, the cluster behind it in `walk`.

Knows no terminal.
"""

from __future__ import annotations

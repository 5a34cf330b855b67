"""What makes a log replicated: roles, epochs, in-sync sets, watermarks, waiters. Knows no sockets and no handlers."""

"""Who may connect, and how it is known: TLS contexts. Knows no sockets and no requests."""

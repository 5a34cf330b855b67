"""Who may connect: TLS contexts and what may be exposed. Knows no sockets and no requests."""

"""Sockets: the loop's selector, receive buffers, connections. Knows frames, not what is in them."""

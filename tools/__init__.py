"""What developers run beside the broker itself. Nothing in `kbroker` may import it."""

"""Groups: who is a member, who reads what, how far they have come. A state machine per kind of group, one namespace of ids.

A group is pure: events in, effects out, no clock, no log, no sockets. The coordinator gives it events, writes its
records to the partition of `__consumer_offsets` that holds it, and hands its answers on. May not import `server` or `net`.
"""

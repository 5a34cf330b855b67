"""The command line: thin click groups, loaded lazily; what is heavy is imported inside the verb that needs it."""

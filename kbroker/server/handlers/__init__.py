"""One function per API, one file per family (the names of `protocol.messages`). A handler tells the story of a request."""

"""Listeners, the table of APIs, dispatch, fetch sessions. The handlers are functions in `handlers`."""

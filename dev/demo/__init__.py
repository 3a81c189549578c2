"""The demo: publish over HTTP, wait for `event_store`, and compare the accepted events with both collections."""

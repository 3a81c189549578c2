"""The write side: publish, store, relay, redrive and reconcile. It never imports the read side."""

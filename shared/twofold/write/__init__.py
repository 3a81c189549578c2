"""The write side: publish, store, relay, reconcile, redrive. It never imports the read side."""

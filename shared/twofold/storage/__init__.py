"""One module for each collection, and the indexes of their filters."""

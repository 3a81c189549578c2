"""The collections, one module for one collection, and the indexes of the filters."""

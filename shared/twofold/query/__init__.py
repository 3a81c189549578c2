"""A reader's query: parameters, filters, cursors and limits. Pure."""

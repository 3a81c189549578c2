"""A reader's query: its parameters, filters, cursors and limits. Pure: no I/O, no clock."""

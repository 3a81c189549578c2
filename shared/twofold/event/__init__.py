"""An event: its fields, identity, digest and payload. Pure: no I/O, no clock."""

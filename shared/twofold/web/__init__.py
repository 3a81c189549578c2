"""The HTTP edge: functions, requests, errors, tokens, APIs, and shutdown."""

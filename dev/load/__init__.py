"""The load generator of the demo and of the fault suite: events, their requests, and a producer that posts them."""

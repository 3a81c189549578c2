"""MongoDB: the client, durable inserts, the safe time, and locks."""

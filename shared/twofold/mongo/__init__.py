"""MongoDB: the client, documents, durable inserts, the safe time, and locks."""

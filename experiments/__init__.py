"""Training runs: one configuration a published experiment."""

"""The integer model, its exporters, their verifiers and reports."""

"""Everything that checks the provider, importable so that the demo can share the harness."""

"""Checks the built packages the way a user meets them: in a clean environment, far from the repository."""

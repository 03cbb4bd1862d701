"""Tests of the hook, against real connections and a real HTTP server."""

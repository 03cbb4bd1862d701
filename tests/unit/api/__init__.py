"""Tests of the client, against real HTTP servers."""

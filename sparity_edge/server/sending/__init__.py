"""Sending: what is chosen on its way to clients, as it comes (`streams`, `sse`) or `whole`."""

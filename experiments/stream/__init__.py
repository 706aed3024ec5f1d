"""Coded video over a channel that loses packets, simulated or on real sockets."""

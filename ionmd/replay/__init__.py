"""Recordings and stored cases through the stages of the daemon, as fast as they go."""

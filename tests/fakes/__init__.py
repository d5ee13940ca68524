"""Fakes that keep the same contracts as the real stores: tests/contract runs on both."""

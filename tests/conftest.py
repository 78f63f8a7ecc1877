"""Fixtures that every kind of test shares."""

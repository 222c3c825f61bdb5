"""Measurements of models on the machine of the user."""

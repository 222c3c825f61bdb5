"""Measurements of models beside their peers."""

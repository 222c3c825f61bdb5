"""Which models there are: architectures as data, names, and the YAML text of each. No torch is imported here."""

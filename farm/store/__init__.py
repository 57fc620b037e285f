"""Runs where they are kept: ``runs`` reads them, ``writer`` writes them."""

"""The fields of a trial, and what follows from them."""

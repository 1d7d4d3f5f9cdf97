"""Data files that ship with the library, and the scripts that built them."""

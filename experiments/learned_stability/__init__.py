"""Ruderman et al. 2018, Learned deformation stability in CNNs."""

"""Tomasini et al. 2022 (SI): how deep CNNs lose spatial information with training."""

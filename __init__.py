"""Spike2Former as a platform: search, train and compare spiking image segmentors."""

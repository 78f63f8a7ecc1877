"""Models in: find them, load them, quantise them, on the device at hand."""

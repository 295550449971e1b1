"""Generated text for the model that ships with nibble: stories and simple conversations."""

"""The algorithms, and the plans and linear systems that they work on."""

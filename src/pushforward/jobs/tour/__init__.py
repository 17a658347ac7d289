"""`pushforward tour`: what the library does, on real data, as one page."""

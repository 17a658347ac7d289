"""`pushforward fit-map`: a transport map from points of two distributions."""

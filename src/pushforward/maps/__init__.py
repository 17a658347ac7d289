"""Transport maps: learn what carries one distribution to another, and use it on unseen points."""

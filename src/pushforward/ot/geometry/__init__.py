"""What pairs cost, each form by itself: a matrix, points, a pixel grid, points on a line; and plans on them."""

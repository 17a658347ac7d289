"""`pushforward train-diffusion`: a diffusion model of images."""

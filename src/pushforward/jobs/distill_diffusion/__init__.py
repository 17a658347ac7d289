"""`pushforward distill-diffusion`: a diffusion model into a one-step generator."""

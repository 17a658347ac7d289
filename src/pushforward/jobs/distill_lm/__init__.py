"""`pushforward distill-lm`: a language model into a smaller one."""

"""`pushforward solve`: one transport problem from files."""

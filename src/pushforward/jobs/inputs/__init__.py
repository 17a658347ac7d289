"""Users' files as the library's inputs. An error names the file and is one line."""

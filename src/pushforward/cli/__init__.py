"""The command line: it parses, calls the verb in `jobs`, and turns errors into one line. `--help` imports no torch."""

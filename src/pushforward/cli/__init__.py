"""The command line: one file a verb. A verb imports what is heavy only when it runs, so `--help` stays quick."""

"""Runs the parts end to end: feeds, migrations, the embedded broker and engine, verification and the command line."""

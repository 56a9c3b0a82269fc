"""The layouts of other code-bases' checkpoints. The folder is the registry; see layout.py."""

"""The subcommands of `trtseg` that belong to no other folder: `add_arguments` and `run` each."""

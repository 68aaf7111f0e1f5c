"""The `./mesh` command: builds, starts, inspects and tests a mesh on this machine."""

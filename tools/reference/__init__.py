"""The expertmesh model family in torch, written from docs/model-family.md alone."""

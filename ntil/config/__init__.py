"""Configuration of a run: schema, composition, identity and the building of components."""

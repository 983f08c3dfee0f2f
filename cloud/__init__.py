"""The cloud side: collector, catalog, objects, datasets, model registry and model tooling."""

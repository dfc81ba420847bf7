"""The routes of the REST API, one file a resource. Each file has one ``router``; ``api.app`` puts them together."""

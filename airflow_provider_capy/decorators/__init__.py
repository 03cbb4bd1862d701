"""The provider's decorators, one module per noun; nothing is imported here so that parsing a DAG stays cheap."""
